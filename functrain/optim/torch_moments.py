"""The state of a ``torch.optim`` optimizer as that of an optimizer of functrain."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor

from functrain.core.first_step import refuse_members, require_state
from functrain.core.optimizer import Optimizer, OptimizerState, Params
from functrain.core.program import Program
from functrain.core.protocol import require_plain
from functrain.core.state import TrainState
from functrain.errors import ConfigurationError, ParameterMismatchError, UnsupportedError
from functrain.errors.calls import explained
from functrain.optim import torch_state
from functrain.optim.from_torch import FromTorch
from functrain.optim.groups import Frozen, Groups
from functrain.optim.leafwise import Leafwise
from functrain.optim.methods.adam import AdamW
from functrain.optim.update_counts import PER_PARAMETER

# Arguments of torch's classes that decide how a step is computed, and not what.
_HOW = {"params", "lr", "foreach", "fused", "capturable", "differentiable"}
_CONTENTS = "expected optimizer.state_dict() of a torch.optim optimizer, {'state', 'param_groups'}"


class _Own(NamedTuple):
    """The part of torch's optimizer for one parameter: its tensors, the options of its group."""

    kept: Mapping[str, Any]
    options: Mapping[str, Any]


@explained
def load_torch_state(
    program: Program, state: TrainState, state_dict: Mapping[str, Any]
) -> TrainState:
    """Return a state with the moments and counts of a ``torch.optim`` optimizer.

    With the weights of the same moment, ``program.init(params=model.state_dict())``, the next step
    is the one that the torch loop would make. The learning rate is that of the program, and a
    schedule goes by ``state.counters.step``.

    Args:
        program: its optimizer is of the class and has the hyperparameters of torch's; or it is a
            ``from_torch`` of the class, or groups of such, in the order of torch's groups.
        state: of the program; not changed.
        state_dict: ``optimizer.state_dict()``. Its parameters are identified by their names if it
            has any (torch keeps them for ``named_parameters()``), else by their order, which must
            be that of ``model.parameters()``, of all or of those that are trained, in each group.

    Returns:
        The state with another ``optimizer``.

    Raises:
        ParameterMismatchError: the numbers of parameters, names or shapes do not fit.
        ConfigurationError: it is the state of another optimizer, or has other hyperparameters.
        UnsupportedError: the program's optimizer has no counterpart in torch.

    Example:
        >>> import functrain as ft, torch
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        >>> model(torch.ones(4, 2)).square().mean().backward()
        >>> optimizer.step()
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(model, loss, ft.optim.AdamW(lr=0.1))
        >>> state = ft.optim.load_torch_state(program, program.init(), optimizer.state_dict())
        >>> state.optimizer["step"]
        tensor(1.)
    """
    require_plain(program, "load_torch_state")
    require_state(state, state_dict)
    refuse_members(state)
    program.require(state)
    whole = program.gathered(state)
    params = {path: whole.params[path] for path in program.fixed.trainable}
    own = _by_path(program, params, state_dict)
    loaded = _loaded(program.recipe.optimizer, params, own)
    return program.place(attrs.evolve(whole, optimizer=loaded))


def _by_path(program: Program, params: Params, state_dict: Any) -> dict[str, _Own]:
    """Return what there is for each trained parameter."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= state_dict.keys():
        got = list(state_dict)[:8] if isinstance(state_dict, Mapping) else type(state_dict).__name__
        raise ConfigurationError(f"load_torch_state: {_CONTENTS}, got {got}")
    groups, kept = state_dict["param_groups"], state_dict["state"]
    found = {}
    for group, paths in zip(groups, _paths(program, params, groups), strict=True):
        options = {name: value for name, value in group.items() if name != "params"}
        for index, path in zip(group["params"], paths, strict=True):
            found[path] = _Own(kept.get(index, {}), options)
    if missing := [f"missing {path!r}" for path in params if path not in found]:
        raise ParameterMismatchError("torch's optimizer has other parameters", missing)
    return {path: found[path] for path in params}


def _paths(program: Program, params: Params, groups: Any) -> list[list[str]]:
    """Return the paths of the parameters of each of torch's groups."""
    model = program.fixed.model
    if all("param_names" in group for group in groups):
        return [[model.aliases.get(n, n) for n in group["param_names"]] for group in groups]
    sizes = [len(group["params"]) for group in groups]
    ours = [[path for path in params if path in part] for part in _parts(program, params)]
    every, trained = list(model.params), list(params)
    options = [[every], [trained], ours]
    for option in options:
        if list(map(len, option)) == sizes:
            return option
    raise ParameterMismatchError(
        "torch's optimizer has other parameters, or other groups, than the program, and their "
        "names are unknown. Make it of model.named_parameters(), or the program of "
        "functrain.optim.groups in the order of its groups",
        [
            f"{sizes} parameters by group in torch",
            f"{[len(part) for part in ours]} by group that the program trains, of {len(every)}",
        ],
    )


def _parts(program: Program, params: Params) -> list[Params]:
    optimizer: Any = program.recipe.optimizer
    if not isinstance(optimizer, Groups):
        return [params]
    parts = optimizer.parts(params, params)
    return [parts[name] for name, _ in optimizer.members if parts[name]]


def _loaded(optimizer: Optimizer, params: Params, own: Mapping[str, _Own]) -> OptimizerState:
    if isinstance(optimizer, Frozen):
        return {}
    if isinstance(optimizer, Groups):
        parts, begun = optimizer.parts(params, params), optimizer.init(params)
        members = {name: one for name, one in optimizer.members if name in begun}
        return {name: _loaded(one, parts[name], own) for name, one in members.items()}
    mine = {path: own[path] for path in params}
    if isinstance(optimizer, FromTorch):
        return _of_from_torch(optimizer, params, mine)
    one: Any = optimizer
    if getattr(one, "leafwise", False) and hasattr(torch.optim, type(one).__name__):
        return _of_leafwise(one, params, mine)
    raise UnsupportedError(
        f"load_torch_state: {type(optimizer).__name__} has no counterpart in torch.optim. Give the "
        "program the optimizer without it, or begin without moments"
    )


def _of_from_torch(optimizer: FromTorch, params: Params, own: Mapping[str, _Own]) -> OptimizerState:
    begun: dict[str, Any] = dict(optimizer.init(params))
    name = optimizer.cls.__name__
    for each in own.values():
        _check_options(name, begun["group"], each.options)
    kept = {path: _moved(each.kept, params[path]) for path, each in own.items() if each.kept}
    return {**begun, "state": kept}


def _moved(kept: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
    """Return copies where the parameter is; torch keeps counts on the host."""
    copied: dict[str, Any] = torch_state.copied(dict(kept))
    return {
        key: value.to(param.device) if isinstance(value, Tensor) and value.ndim else value
        for key, value in copied.items()
    }


def _of_leafwise(optimizer: Leafwise, params: Params, own: Mapping[str, _Own]) -> OptimizerState:
    begun: dict[str, Any] = dict(optimizer.init(params))
    name = type(optimizer).__name__
    kind: Any = type(optimizer)
    options = {field.name: getattr(optimizer, field.name) for field in attrs.fields(kind)}
    options.setdefault("decoupled_weight_decay", isinstance(optimizer, AdamW))
    slots = {slot: dict(begun[slot]) for slot in optimizer.slots}
    scalars = {key: value for key, value in begun.items() if key not in slots}
    counts: dict[str, dict[str, Tensor]] = {}
    problems: list[str] = []
    for path, each in own.items():
        _check_options(name, options, each.options)
        kept = _counted(each.kept)
        counts[path] = {key: _like(kept.get(key, value), value) for key, value in scalars.items()}
        leaf = {slot: values[path] for slot, values in slots.items() if path in values}
        problems += _problems(path, {**leaf, **scalars}, kept)
        if kept and not problems:
            for slot, mine in leaf.items():
                slots[slot][path] = _like(kept[slot], mine)
    if problems:
        raise ParameterMismatchError(f"torch's optimizer has no state of {name}", problems)
    return {**_together(counts, scalars, optimizer.counts_each), **slots}


def _counted(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return what torch keeps of a parameter, with a count, or nothing."""
    found = {key: value for key, value in kept.items() if value is not None}
    if not found:
        return {}
    # SGD and Muon do not count; only the first update differs from the others.
    return {"step": 1.0, **found}


def _problems(path: str, ours: Mapping[str, Any], kept: Mapping[str, Any]) -> Iterator[str]:
    """Describe how the values that torch keeps of a parameter differ from ours."""
    if not kept:
        return
    yield from (f"{path!r} has no {key!r}" for key in ours if key not in kept)
    yield from (f"{path!r} has {key!r}, which is unknown" for key in kept if key not in ours)
    for key in ours.keys() & kept.keys():
        given, expected = torch.as_tensor(kept[key]).shape, ours[key].shape
        if given != expected:
            yield f"{key!r} of {path!r} has shape {list(given)}, expected {list(expected)}"


def _like(value: Any, ours: Tensor) -> Tensor:
    return torch.as_tensor(value).detach().to(ours, copy=True)


def _together(
    counts: dict[str, dict[str, Tensor]], begun: dict[str, Tensor], counts_each: bool
) -> dict[str, Any]:
    """Return the scalars that most parameters have, and those of the others by path."""
    if not counts:
        return begun
    rows = {path: tuple(value.item() for value in own.values()) for path, own in counts.items()}
    (common, _), *others = Counter(rows.values()).most_common()
    if others and not counts_each:
        common = max(rows.values())
    shared = next(counts[path] for path, row in rows.items() if row == common)
    apart = [path for path, row in rows.items() if row != common] if counts_each else []
    own = {name: {path: counts[path][name] for path in apart} for name in begun}
    return {**shared, **({PER_PARAMETER: own} if apart else {})}


def _check_options(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Refuse the state of an optimizer with other hyperparameters."""
    problems = [
        f"{key}={theirs[key]!r} in torch, {value!r} in the program"
        for key, value in ours.items()
        if key in theirs and key not in _HOW and not _equal(value, theirs[key])
    ]
    unknown = [key for key in theirs if key in _torch_options() - _HOW and key not in ours]
    problems += [f"{key}={theirs[key]!r} in torch, which {name} does not have" for key in unknown]
    if problems:
        raise ConfigurationError(
            f"load_torch_state: the program's {name} is another optimizer than torch's: "
            f"{'; '.join(problems)}. Give the program torch's hyperparameters, or change them in "
            "state_dict['param_groups']"
        )


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


@functools.cache
def _torch_options() -> frozenset[str]:
    classes = [one for one in vars(torch.optim).values() if isinstance(one, type)]
    kinds = [one for one in classes if issubclass(one, torch.optim.Optimizer)]
    return frozenset(name for one in kinds for name in inspect.signature(one).parameters)
