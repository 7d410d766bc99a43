"""Load the weights of a model from a checkpoint or a plain file, and nothing else."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path
from typing import Any, Literal, TypeAlias

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.format.records import Leaf
from functrain.checkpoint.loading import is_intact
from functrain.checkpoint.manifest_file import locate, read_errors, read_manifest
from functrain.checkpoint.pruning import warn_skipped
from functrain.checkpoint.run_directory import list_steps, step_name
from functrain.checkpoint.storage import reading
from functrain.core.pretrained import state_dicts
from functrain.errors import CheckpointCorruptError, ConfigurationError, NoCheckpointError
from functrain.errors.nearest import nearest

What: TypeAlias = Literal["params", "ema", "all"]
# The path of the training state in a run's checkpoint, and in one that holds only the state.
_BASES = ("train.", "")

# The errors of torch for bytes that are not a pickle of tensors.
_UNREADABLE = (
    *(pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError, IndexError),
    *(TypeError, AttributeError, AssertionError, OverflowError),
)


def weights(
    path: str | Path,
    what: What = "params",
    *,
    program: str | None = None,
    device: str | torch.device = "cpu",
) -> dict[str, Tensor]:
    """Load weights by name, for ``program.init(params=...)`` or a module's ``load_state_dict``.

    Args:
        path: a run directory (its newest checkpoint that verifies), a checkpoint, a safetensors
            file, or a ``state_dict`` file from ``torch.save``; of the last, only tensors and plain
            containers are unpickled.
        what: ``"params"``, or ``"ema"`` for averaged ones; see :func:`select_weights`.
        program: the name of one of several programs of :func:`functrain.joint`, ``"generator"``;
            of one that is joint itself, ``"outer.inner"``.
        device: the device of the tensors.

    Returns:
        Parameters and persistent buffers, tied ones under all of their names, if ``fit`` recorded
        them; for a state saved without ``fit`` its parameters and all buffers.

    Raises:
        NoCheckpointError: the path does not exist.
        CheckpointCorruptError: it is damaged, or not a file of weights.
        ConfigurationError: it does not hold these weights.

    Example:
        >>> import functrain as ft, tempfile
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> place = ft.save(Path(tempfile.mkdtemp()) / "c", program.init())
        >>> fresh = program.init(params=weights(place))
        >>> fresh.counters.step
        0
    """
    place = locate(path)
    if place.is_dir():
        return _from_checkpoint(_checkpoint(place), what, program, device)
    if not place.exists():
        raise NoCheckpointError(errno.ENOENT, f"there is no checkpoint and no file at {place}")
    if what != "params" or program is not None:
        asked = f"what={what!r}" if program is None else f"program={program!r}"
        raise ConfigurationError(f"{asked}: {place} is a plain file, which holds one kind")
    with read_errors(place):
        return _from_file(place, device)


def select_weights(manifest: Manifest, what: What, program: str | None = None) -> dict[str, Leaf]:
    """Select the leaves of the weights, by their names in the module.

    ``"params"`` are parameters and persistent buffers; ``"ema"`` the same with averaged parameters;
    ``"all"`` is every tensor by its dotted path.
    """
    if what not in ("params", "ema", "all"):
        raise ConfigurationError(f"what={what!r}: expected 'params', 'ema' or 'all'")
    by_path: dict[str, Leaf] = {}
    for leaf in manifest.leaves:
        if leaf.path in by_path:
            raise ConfigurationError(
                f"two tensors are called {leaf.path!r}, so one file cannot hold both by name"
            )
        by_path[leaf.path] = leaf
    if what == "all":
        return by_path if program is None else _under(by_path, _base(by_path, program))
    population = manifest.info.get("population") if isinstance(manifest.info, dict) else None
    if population:
        raise ConfigurationError(
            f"the checkpoint is of a population of {population['members']} members, whose weights "
            "lie together; take one out: functrain member RUN OUT --index 0, or "
            "pop.member(state, 0). what='all' takes all tensors by their paths"
        )
    base = _base(by_path, program)
    weights = _under(by_path, f"{base}params.")
    if what == "ema":
        averaged = _under(by_path, f"{base}ema.params.")
        if not averaged:
            raise ConfigurationError("the checkpoint has no averaged weights; take what='params'")
        weights |= averaged
    transient = _noted(manifest, "transient", list, program)
    buffers = _under(by_path, f"{base}buffers.")
    weights |= {name: leaf for name, leaf in buffers.items() if name not in transient}
    ties = _noted(manifest, "ties", dict, program)
    # A state holds a tied parameter once, by its first name.
    return weights | {name: weights[first] for name, first in ties.items() if first in weights}


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


def _noted(manifest: Manifest, name: str, cls: type[Any], program: str | None) -> Any:
    """Return what ``fit`` recorded under a name; empty for checkpoints without ``fit``."""
    found = manifest.info.get(name) if isinstance(manifest.info, dict) else None
    if program is not None:
        found = found.get(program) if isinstance(found, dict) else None
    return found if isinstance(found, cls) else cls()


def _checkpoint(place: Path) -> Path:
    """Return the path itself, or the newest checkpoint in a run directory that verifies."""
    steps = list_steps(place)
    for step in reversed(steps):
        path = place / step_name(step)
        if is_intact(path):
            return path
        warn_skipped(path, CheckpointCorruptError("it is damaged"))
    if steps:
        raise CheckpointCorruptError(f"every checkpoint in {place} is damaged")
    return place


def _from_checkpoint(
    place: Path, what: What, program: str | None, device: str | torch.device
) -> dict[str, Tensor]:
    manifest = read_manifest(place)
    names = select_weights(manifest, what, program)
    places = {leaf.path: index for index, leaf in enumerate(manifest.leaves)}
    wanted = {name: places[leaf.path] for name, leaf in names.items()}
    target = torch.device(device)
    targets = dict.fromkeys(range(len(manifest.leaves)), target)
    with read_errors(place):
        found = reading.read(
            place, manifest.files, manifest.leaves, targets, wanted=set(wanted.values())
        )
    return {name: found[index] for name, index in wanted.items()}


def _from_file(place: Path, device: str | torch.device) -> dict[str, Tensor]:
    try:
        if place.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(place, device=str(device)))
        found = torch.load(place, map_location=device, weights_only=True)
    except (SafetensorError, *_UNREADABLE) as error:
        # Leave out torch's advice to use weights_only=False, which runs code in the file.
        raise CheckpointCorruptError(
            f"{place} cannot be read as weights: it is no safetensors file and no state_dict that "
            f"loads without running code ({type(error).__name__})"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        nested = state_dicts(found) if isinstance(found, dict) else {}
        hint = f" (checkpoint = torch.load(...); weights may be {', '.join(nested.values())})"
        raise ConfigurationError(
            f"{place} holds a {type(found).__name__} that is no state_dict (names and tensors); "
            "load it with torch.load and give the weights in it to program.init(params=...)"
            f"{hint if nested else ''}"
        )
    return dict(found)
