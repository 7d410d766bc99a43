"""Move the state of a torch optimizer object into another object.

That is its state, its group, and its plain attributes; see `attributes`.
"""

from __future__ import annotations

import functools
import inspect
from collections import deque
from typing import Any

import torch
from torch import Tensor, nn

from functrain.core.optimizer import TORCH_MADE_BY as MADE_BY
from functrain.errors import ParameterMismatchError
from functrain.errors.nearest import nearest

State = dict[str, Any]
_KEYED = "keyed by"
_PLAIN = (int, float, complex, str, bytes, type(None), Tensor)


def extract(built: torch.optim.Optimizer, paths: list[str], fresh: State) -> State:
    """Return what an object remembers; its tensors themselves, not copies."""
    group = built.param_groups[0]
    names = {id(param): path for param, path in zip(group["params"], paths, strict=True)}
    changed = {
        name: value
        for name, value in attributes(built).items()
        if name not in fresh["attributes"] or not _same(value, fresh["attributes"][name])
    }
    kept = built.state.items()
    return {
        "state": {names[id(key)]: dict(own) for key, own in kept if id(key) in names},
        "shared": {key: value for key, value in kept if id(key) not in names},
        "group": _entries(built),
        "attributes": {
            MADE_BY: {"class": type(built).__name__, "group": fresh["group"]},
            **{name: _by_path(value, names) for name, value in changed.items()},
        },
    }


def restore(built: torch.optim.Optimizer, paths: list[str], state: State) -> None:
    """Make an object remember a state, without changing any value's type or dtype.

    Its tensors are used, and changed by the object's next step. Entries of the group that the class
    has not changed are options, and stay those of this object.

    Raises:
        ParameterMismatchError: the state is that of another class, or of other parameters.
    """
    group = built.param_groups[0]
    made = state["attributes"].get(MADE_BY)
    _refuse_another_class(built, made)
    params = dict(zip(paths, group["params"], strict=True))
    unknown = sorted(state["state"].keys() - params.keys())
    if unknown:
        raise ParameterMismatchError(
            f"the state of {type(built).__name__} is that of other parameters",
            [f"unexpected {path!r}{nearest(path, params)}" for path in unknown],
        )
    built.state.clear()
    for path, kept in state["state"].items():
        built.state[params[path]] = dict(kept)
    built.state.update(state["shared"])
    for name, value in state["group"].items():
        if not _is_option(name, value, made, built):
            group[name] = value
    for name, value in state["attributes"].items():
        if name != MADE_BY:
            _set(built, name, _by_param(value, params))


def _refuse_another_class(built: torch.optim.Optimizer, made: State | None) -> None:
    cls = type(built).__name__
    if made is not None and made["class"] != cls:
        raise ParameterMismatchError(
            "the state is that of another class: continue with that one, or begin again from the "
            "weights, program.init(params={**state.params, **state.buffers})",
            [f"expected {cls}, got {made['class']}"],
        )


def refuse_missing(built: torch.optim.Optimizer, paths: list[str], name: object) -> None:
    """Raise if a step failed because states of parameters lack an entry of this name.

    Raises:
        ParameterMismatchError: they have other entries, those of other options.
    """
    kept = [built.state.get(param) for param in built.param_groups[0]["params"]]
    lacking = [path for path, own in zip(paths, kept, strict=True) if own and name not in own]
    if isinstance(name, str) and lacking:
        raise ParameterMismatchError(
            f"{type(built).__name__} was given a state that was made with other options: continue "
            "with those, or begin again from the weights, "
            "program.init(params={**state.params, **state.buffers})",
            [f"optimizer.state.{path}.{name}: missing" for path in lacking],
        )


def _is_option(name: str, value: Any, made: State | None, built: torch.optim.Optimizer) -> bool:
    if made is None:  # a state of an earlier version, which does not say with what it began
        return name in inspect.signature(type(built)).parameters
    # Of what is not plain, as a generator, nobody can tell whether it has changed.
    return name in made["group"] and _plain(value) and _same(value, made["group"][name])


def fresh_values(built: torch.optim.Optimizer) -> State:
    """Return copies of what a new object has in its group and plain attributes."""
    return {"group": copied(_entries(built)), "attributes": attributes(built)}


def _entries(built: torch.optim.Optimizer) -> State:
    group = built.param_groups[0]
    return {name: group[name] for name in group if name not in ("params", "lr")}


def attributes(built: torch.optim.Optimizer) -> State:
    """Return copies of an object's plain attributes that torch's base class does not have.

    Plain are numbers, strings, None, tensors, and lists, tuples and dicts of them; deques and sets
    of them count as lists. Other values stay as in a fresh object.
    """
    return {
        name: copied(value)
        for name, value in vars(built).items()
        if name not in _base_attributes() and _plain(value)
    }


def copied(value: Any) -> Any:
    """Return a deep copy of tensors in dicts, lists and tuples; anything else as it is."""
    if isinstance(value, deque):
        value = list(value)
    elif isinstance(value, set):
        value = sorted(value, key=repr)
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {name: copied(item) for name, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    if type(value) is tuple:
        return tuple(copied(item) for item in value)
    return value


def _by_path(value: Any, names: dict[int, str]) -> Any:
    """Dicts with parameters or their ids as keys, at any depth, as dicts by path that say so."""
    if not isinstance(value, dict):
        return value
    items = {key: _by_path(item, names) for key, item in value.items()}
    if not items or not all(_id(key) in names for key in items):
        return items
    by = "id" if isinstance(next(iter(items)), int) else "param"
    return {_KEYED: by, "values": {names[_id(key)]: item for key, item in items.items()}}


def _by_param(value: Any, params: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    by = value.get(_KEYED)
    if by is None:
        return {key: _by_param(item, params) for key, item in value.items()}
    keys = {path: id(param) if by == "id" else param for path, param in params.items()}
    return {keys[path]: _by_param(item, params) for path, item in value["values"].items()}


def _set(built: torch.optim.Optimizer, name: str, value: Any) -> None:
    """Set an attribute; a container of another class than dict or list is filled and keeps it."""
    present = getattr(built, name, None)
    if isinstance(present, deque):
        present.clear()
        present.extend(value)
    elif isinstance(present, set) or (isinstance(present, dict) and type(present) is not dict):
        present.clear()
        present.update(value)
    else:
        setattr(built, name, value)


def _id(key: Any) -> int:
    return key if isinstance(key, int) else id(key)


def _plain(value: Any) -> bool:
    if isinstance(value, nn.Parameter):
        return False  # the object's own list of parameters is not part of what it remembers
    if isinstance(value, dict):
        return all(_plain(item) for item in value.values())
    if isinstance(value, list | tuple | deque | set):
        return all(_plain(item) for item in value)
    return isinstance(value, _PLAIN)


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    return type(left) is type(right) and bool(left == right)


@functools.cache
def _base_attributes() -> frozenset[str]:
    # Not at import time: torch's optimizers import its compiler when the first one is made.
    return frozenset(vars(torch.optim.Optimizer([torch.zeros(())], {})))
