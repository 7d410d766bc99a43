"""Which tensors of a checkpoint are the weights of a model, and which of those are evaluated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import attrs
from torch import Tensor

from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.format.records import Leaf
from functrain.checkpoint.outline import outline
from functrain.core.optimizer import Averages
from functrain.errors import ConfigurationError
from functrain.errors.nearest import nearest

What: TypeAlias = Literal["params", "trained", "ema", "all"]
# The path of the training state in a run's checkpoint, and in one that holds only the state.
_BASES = ("train.", "")
# Keys in states of optimizers that evaluate other weights: Schedule-Free, Lookahead, and
# classes of other packages with a mode for evaluation.
_OF_AVERAGING = frozenset({"weight_sum", "next_eta", "slow", "train_mode"})


@attrs.frozen(eq=False)
class Weight:
    """A tensor of the weights: a leaf, or what an optimizer evaluates in its place.

    Attributes:
        leaf: the leaf in the state; its dtype is that of the weight.
        sources: the leaves to read: itself; or an average, after the parameter if that counts too.
        averages: how they make the weight.
    """

    leaf: Leaf
    sources: tuple[Leaf, ...]
    averages: Averages | None = None

    def value(self, read: Callable[[Leaf], Tensor]) -> Tensor:
        """Return the tensor, given a function that reads leaves."""
        each = [read(leaf) for leaf in self.sources]
        found = each[-1] if self.averages is None else self.averages.weight(each[0], each[-1])
        return found.to(BY_NAME[self.leaf.dtype])


def select_weights(manifest: Manifest, what: What, program: str | None = None) -> dict[str, Weight]:
    """Select the weights, by their names in the module.

    ``"params"`` are parameters as they are evaluated, and persistent buffers; ``"trained"`` the
    same with parameters as the last step left them; ``"ema"`` with averaged parameters; ``"all"``
    is every tensor by its dotted path.
    """
    if what not in get_args(What):
        raise ConfigurationError(f"what={what!r}: expected 'params', 'trained', 'ema' or 'all'")
    by_path: dict[str, Leaf] = {}
    for leaf in manifest.leaves:
        if leaf.path in by_path:
            raise ConfigurationError(
                f"two tensors are called {leaf.path!r}, so one file cannot hold both by name"
            )
        by_path[leaf.path] = leaf
    if what == "all":
        return _as_saved(by_path if program is None else _under(by_path, _base(by_path, program)))
    population = manifest.info.get("population") if isinstance(manifest.info, dict) else None
    if population:
        raise ConfigurationError(
            f"the checkpoint is of a population of {population['members']} members, whose weights "
            "lie together; take one out: functrain member RUN OUT --index 0, or "
            "pop.member(state, 0). what='all' takes all tensors by their paths"
        )
    base = _base(by_path, program)
    params = _under(by_path, f"{base}params.")
    weights = _as_saved(params)
    if what == "ema":
        averaged = _under(by_path, f"{base}ema.params.")
        if not averaged:
            raise ConfigurationError("the checkpoint has no averaged weights; take what='params'")
        # An average may be wider than the parameter; it is evaluated in the dtype of that.
        weights |= {name: Weight(params[name], (leaf,)) for name, leaf in averaged.items()}
    if what == "params":
        optimizer = _under(by_path, f"{base}optimizer.")
        for averages in _averages(manifest, base, program):
            weights |= _evaluated(averages, params, optimizer)
    transient = _noted(manifest, "transient", program, list, [])
    buffers = _under(by_path, f"{base}buffers.")
    weights |= _as_saved({name: leaf for name, leaf in buffers.items() if name not in transient})
    ties = _noted(manifest, "ties", program, dict, {})
    # A state holds a tied parameter once, by its first name.
    return weights | {name: weights[first] for name, first in ties.items() if first in weights}


def _as_saved(leaves: dict[str, Leaf]) -> dict[str, Weight]:
    return {name: Weight(leaf, (leaf,)) for name, leaf in leaves.items()}


def _evaluated(
    averages: Averages, params: dict[str, Leaf], optimizer: dict[str, Leaf]
) -> dict[str, Weight]:
    """Return the weights that are evaluated in place of parameters, by what an optimizer said."""
    updated = (
        params if averages.params is None else params | _under(optimizer, f"{averages.params}.")
    )
    return {
        name: Weight(
            params[name], (entry,) if averages.share is None else (updated[name], entry), averages
        )
        for name, entry in _under(optimizer, f"{averages.slot}.").items()
    }


def _averages(manifest: Manifest, base: str, program: str | None) -> list[Averages]:
    """Return which weights are evaluated in place of parameters.

    Raises:
        ConfigurationError: the optimizer evaluates others, and the checkpoint does not tell which.
    """
    said = _noted(manifest, "averages", program, list | None, ())
    if isinstance(said, list):
        return [Averages(**one) for one in said]
    path = (*base.split(".")[:-1], "optimizer")
    state = (entry.path for entry in outline(manifest) if entry.path[: len(path)] == path)
    if said is None or any(one[-1] in _OF_AVERAGING for one in state):
        raise ConfigurationError(
            "the optimizer evaluates other weights than it trains, and this checkpoint does not "
            "tell them without the program; take what='trained' for those that it trains, or "
            "'with program.evaluating(state) as model: model.state_dict()' for those of its metrics"
        )
    return []


def _base(by_path: dict[str, Leaf], program: str | None) -> str:
    """Return the path of the training state of a program."""
    programs = _programs(by_path)
    if program is not None:
        if program not in programs:
            raise ConfigurationError(
                f"program={program!r}: expected one of the programs in the checkpoint, "
                f"{list(programs)}{nearest(program, programs)}"
                if programs
                else f"program={program!r}: the checkpoint is of one program; leave it out"
            )
        return programs[program]
    base = next((base for base in _BASES if _under(by_path, f"{base}params.")), None)
    if base is not None:
        return base
    if programs:
        raise ConfigurationError(
            f"the checkpoint is of several programs, {list(programs)}: say whose weights, as in "
            f"functrain.checkpoint.weights(path, program={next(iter(programs))!r}); what='all' "
            "takes all by their paths"
        )
    raise ConfigurationError(
        "no tensors are under 'params' or 'train.params'; what='all' takes all by their paths"
    )


def _programs(by_path: dict[str, Leaf]) -> dict[str, str]:
    """Return the paths of the states of programs within a joint one, by their names."""
    ends = "counters.skipped"  # each state has it
    bases = [path.removesuffix(ends) for path in by_path if path.endswith(f".{ends}")]
    named = {base.removeprefix("train.").rstrip("."): base for base in bases}
    return {
        name: base for name, base in named.items() if name and _under(by_path, f"{base}params.")
    }


def _under(leaves: dict[str, Leaf], prefix: str) -> dict[str, Leaf]:
    return {path[len(prefix) :]: leaf for path, leaf in leaves.items() if path.startswith(prefix)}


def _noted(manifest: Manifest, name: str, program: str | None, kinds: Any, default: Any) -> Any:
    """Return what ``fit`` recorded under a name; the default for checkpoints without ``fit``."""
    found = manifest.info.get(name, default) if isinstance(manifest.info, dict) else default
    if program is not None:
        found = found.get(program, default) if isinstance(found, dict) else default
    return found if isinstance(found, kinds) else default
