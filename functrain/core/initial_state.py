"""The state before the first step: initial values, or pretrained ones in their place."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from functrain import tree
from functrain.core import learning_rate, precision
from functrain.core.buffers import may_become
from functrain.core.model import FunctionalModule, functionalize
from functrain.core.module_tensors import plain_paths
from functrain.core.optimizer import NamedParams, means
from functrain.core.recipe import StaticParts
from functrain.core.rng import Rng, checked_seed
from functrain.core.state import Counters, Tensors, TrainState
from functrain.errors import ConfigurationError, ParameterMismatchError
from functrain.errors.nearest import nearest
from functrain.tree.nodes import matches

# Names to load, and how names that are given differ from those of the model.
Patterns: TypeAlias = str | Sequence[str] | Callable[[str, Tensor], bool]
Rename: TypeAlias = Mapping[str, str] | Callable[[str], str]


def initial_state(
    fixed: StaticParts,
    schedules: learning_rate.Schedules,
    seed: int,
    params: Any,
    device: torch.device | str | None,
    only: Patterns | None,
    rename: Rename | None,
) -> TrainState:
    """Return the state before the first step; see :meth:`functrain.Program.init`."""
    seed = checked_seed(seed)
    own, buffers = fixed.model.initial(seed)
    if params is not None:
        loaded = load(fixed.model, {**own, **buffers}, params, only, rename)
        own, buffers = {p: loaded[p] for p in own}, {b: loaded[b] for b in buffers}
    elif only is not None or rename is not None:
        raise ConfigurationError("only and rename choose among params: give params, too")
    if device is not None:
        own = {path: tensor.to(device) for path, tensor in own.items()}
        buffers = {path: tensor.to(device) for path, tensor in buffers.items()}
    where = next(iter(own.values())).device
    trained = {path: own[path] for path in fixed.trainable}
    recipe = fixed.recipe
    return TrainState(
        params=own,
        buffers=buffers,
        optimizer=recipe.optimizer.init(trained),
        scheduler=learning_rate.init(schedules),
        ema=None if recipe.ema is None else recipe.ema.init(trained),
        loss_scale=precision.initial_loss_scale(recipe.precision, where),
        rng=Rng(seed),
        counters=Counters.initial(where),
    )


def load(
    model: FunctionalModule,
    into: Tensors,
    values: Any,
    only: Patterns | None = None,
    rename: Rename | None = None,
) -> Tensors:
    """Return initial parameters and buffers with pretrained ones in their place.

    The second names of tied tensors are accepted too, and buffers may be left out. Dtypes stay
    those of the model, as ``load_state_dict`` does it. A buffer that a forward gave its shape keeps
    it. For ``only`` and ``rename`` see :meth:`functrain.Program.init`.
    """
    names = into.keys() | model.aliases.keys()
    _check(values, names)
    if rename is not None:
        values = _rename(values, rename)
        _check(values, names)
    if only is not None:
        values = _choose(model, into, values, only)
    given, problems = _by_own_names(model, values)
    known = {**into, **_resized_by_module(model, into, given, values)}
    problems += mismatches(given, known, model.params)
    if problems:
        from functrain.diagnosis.given_params import prefix_hint

        hint = prefix_hint(values, names)
        raise ParameterMismatchError(f"the given params do not fit the model{hint}", problems)
    return {
        path: _convert(given[path].detach(), tensor) if path in given else tensor
        for path, tensor in into.items()
    }


def mismatches(given: Tensors, known: Tensors, needed: Collection[str]) -> list[str]:
    """Describe why tensors do not fit a model.

    Those not needed are buffers, which may have taken their shape in a forward.
    """
    problems = [f"unexpected {path!r}{nearest(path, known)}" for path in given if path not in known]
    problems += [f"missing {path!r}" for path in needed if path not in given]
    problems += [
        f"{path!r} has shape {list(given[path].shape)}, expected {list(tensor.shape)}"
        for path, tensor in known.items()
        if path in given and given[path].shape != tensor.shape
        if path in needed or not may_become(tensor, given[path].shape)
    ]
    return problems


def _check(values: Any, known: Collection[str]) -> None:
    """Refuse a path, a module, a state, a nested checkpoint and the like."""
    if isinstance(values, Mapping) and all(
        isinstance(name, str) and isinstance(value, Tensor) and not value.is_meta
        for name, value in values.items()
    ):
        return
    from functrain.diagnosis.given_params import refuse

    refuse(values, known)


def _rename(values: Tensors, rename: Rename) -> Tensors:
    function = rename if callable(rename) else _by_beginnings(rename, values)
    renamed: Tensors = {}
    for name, value in values.items():
        new = function(name)
        if new in renamed:
            raise ConfigurationError(f"rename: two of the params would be called {new!r}")
        renamed[new] = value
    return renamed


def _by_beginnings(rename: Mapping[str, str], names: Collection[str]) -> Callable[[str], str]:
    for beginning in rename:
        if not any(name.startswith(beginning) for name in names):
            raise ConfigurationError(
                f"rename: expected the beginnings of names in params, got {beginning!r}, with "
                f"which none begins{nearest(beginning, names)}; they are {list(names)[:8]}"
            )
    longest_first = sorted(rename, key=len, reverse=True)

    def new_name(name: str) -> str:
        for beginning in longest_first:
            if name.startswith(beginning):
                return rename[beginning] + name.removeprefix(beginning)
        return name

    return new_name


def _choose(model: FunctionalModule, into: Tensors, values: Tensors, only: Patterns) -> Tensors:
    """Return the values that ``only`` means, and the model's own parameters for the others."""
    named = NamedParams(into, model.named_params.others)
    wanted = {path for path in into if means(only, path, named)}
    each: Sequence[Any] = [only] if isinstance(only, str) or callable(only) else only
    for pattern in each:
        if not any(means(pattern, path, named) for path in wanted):
            raise ConfigurationError(
                f"only: {pattern!r} matches none of the {len(into)} names of the model"
                f"{nearest(pattern, into) if isinstance(pattern, str) else ''}"
            )
    own = {path: into[path] for path in model.params if path not in wanted}
    chosen = {
        name: value
        for name, value in values.items()
        if matches(only, name, value) or model.aliases.get(name, name) in wanted
    }
    return {**own, **chosen}


def _by_own_names(model: FunctionalModule, values: Tensors) -> tuple[Tensors, list[str]]:
    """Return values by the paths of the model, and the names that contradict each other."""
    plain = plain_paths(model.module, list(values))  # a wrapped model has the names of the inner
    given: Tensors = {}
    contradictions = []
    for path, value in values.items():
        own = model.aliases.get(plain[path], plain[path])
        first = given.setdefault(own, value)
        if first is not value and not tree.equal(first, value):
            contradictions.append(
                f"{path} is another name of a tensor that is given with other values, too; leave "
                "out one of them, or make a model in which they are not tied"
            )
    return given, contradictions


def _resized_by_module(
    model: FunctionalModule, into: Tensors, given: Tensors, values: Tensors
) -> Tensors:
    """Return the given buffers of other shapes that the module's ``load_state_dict`` takes."""
    buffers = [path for path in given if path in into and path not in model.params]
    if all(given[path].shape == into[path].shape for path in buffers):
        return {}
    own = model.factory
    module = copy.deepcopy(model.module) if own is None else functionalize(own).module
    with contextlib.suppress(RuntimeError):  # raised at the end, for all that it did not take
        module.load_state_dict(values, strict=False)
    loaded = {
        model.aliases.get(name, name): buffer
        for name, buffer in module.named_buffers(remove_duplicate=False)
        if name in values and buffer.shape == values[name].shape
    }
    return {path: given[path] for path in buffers if path in loaded}


def _convert(value: Tensor, into: Tensor) -> Tensor:
    # The dtype of an empty buffer, which stands for what a forward makes of it, says nothing.
    placeholder = into.numel() == 0 and value.numel() > 0
    if into.is_meta:  # a model made without values takes those given, wherever they are
        return value.to(into.dtype).clone()
    return value.to(into.device if placeholder else into).clone()
