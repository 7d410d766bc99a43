"""The updates of each parameter, counted apart where they are not the same.

torch.optim skips a parameter that has no gradient, so it counts the updates of each. Here the
parameters share one count, and what other scalars an optimizer has, until one of them is skipped:
that one has its own from then on. ``state["per_parameter"]`` is ``{"step": {path: 0-dim tensor},
scalar: {path: 0-dim tensor}, ...}``, in the order of the parameters, for those that were ever
skipped. Without it all parameters have had the updates that the shared count says.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from functrain.core.optimizer import OptimizerState, Params
from functrain.optim.leaf_rule import LeafRule, Rate, Scalars

PER_PARAMETER = "per_parameter"

_ONE = torch.ones((), dtype=torch.float32, device="cpu")

Own = dict[str, dict[str, Tensor]]
"""Scalars of single parameters, by name and path."""


def scalars_of(
    optimizer: LeafRule, grads: Params, state: OptimizerState, params: Params
) -> tuple[Scalars, Own]:
    """Return the shared scalars before an update, and those of parameters that are ever skipped."""
    others = (*optimizer.slots, PER_PARAMETER)
    shared = {name: value for name, value in state.items() if name not in others}
    if not optimizer.counts_each:
        return shared, {}
    own: Own = state.get(PER_PARAMETER, {})
    return shared, own if len(grads) == len(params) else with_skipped(own, shared, grads, params)


def with_skipped(
    own: Own, shared: Scalars, grads: Mapping[str, Tensor], params: Mapping[str, Tensor]
) -> Own:
    """Return the scalars of single parameters, with copies of the shared ones for those skipped.

    Example:
        >>> w, step = torch.ones(2), torch.tensor(3.0)
        >>> with_skipped({}, {"step": step}, {"a": w}, {"a": w, "b": w})
        {'step': {'b': tensor(3.)}}
    """
    known: Collection[str] = own.get("step", {})
    # At nearly all updates those skipped are known: a sum over them is cheaper than sets of all.
    if len(grads) + sum(path not in grads for path in known) == len(params):
        return own
    skipped = (params.keys() - grads.keys()).difference(known)
    return {
        name: {
            path: value.clone() if path in skipped else own[name][path]
            for path in params
            if path in skipped or path in known
        }
        for name, value in shared.items()
    }


def has_own(own: Own, path: str) -> bool:
    """Tell whether a parameter has scalars of its own."""
    return bool(own) and path in own["step"]


def of_parameter(own: Own, path: str) -> Scalars:
    """Return the scalars of one parameter."""
    return {name: values[path] for name, values in own.items()}


def equal_counts(own: Own, paths: Collection[str]) -> list[list[str]]:
    """Group parameters whose scalars are all equal; waits for the device that these are on.

    Example:
        >>> counts = {"a": torch.tensor(1.0), "b": torch.tensor(2.0), "c": torch.tensor(1.0)}
        >>> equal_counts({"step": counts}, ["a", "b", "c"])
        [['a', 'c'], ['b']]
    """
    columns = [torch.stack([values[path] for path in paths]).tolist() for values in own.values()]
    groups: dict[tuple[float, ...], list[str]] = {}
    for path, *scalars in zip(paths, *columns, strict=True):
        groups.setdefault(tuple(scalars), []).append(path)
    return list(groups.values())


def advanced(optimizer: LeafRule, scalars: Scalars, lr: Rate) -> Scalars:
    """Return the scalars of an update from those before it."""
    carried = {name: value for name, value in scalars.items() if name != "step"}
    step = scalars["step"] + 1
    return {"step": step, **optimizer.advance(carried, lr, step.double())}


def advanced_each(optimizer: LeafRule, own: Own, grads: Params, lr: Rate) -> Own:
    """Return the scalars of single parameters, advanced for those that have a gradient."""
    after = {name: dict(values) for name, values in own.items()}
    for path in own.get("step", {}):
        if path in grads:
            for name, value in advanced(optimizer, of_parameter(own, path), lr).items():
                after[name][path] = value
    return after


def advance_(optimizer: LeafRule, scalars: Scalars, lr: Rate) -> None:
    """Make the scalars before an update those of it, in place."""
    step = scalars["step"]
    # Adding a number takes three times as long as a tensor of the same dtype.
    step.add_(_ONE if type(step) is Tensor and step.is_cpu else 1)
    if len(scalars) > 1:
        carried = {name: value for name, value in scalars.items() if name != "step"}
        for name, value in optimizer.advance(carried, lr, step.double()).items():
            scalars[name].copy_(value)


def aligned(state: Any, other: Any) -> Any:
    """Return an optimizer's state that has scalars of its own for every parameter that `other` has.

    Those added are copies of the shared ones they replace, so the state means the same as before.

    Example:
        >>> ahead = {"step": torch.tensor(3.0), "per_parameter": {"step": {"b": torch.tensor(1.0)}}}
        >>> aligned({"step": torch.tensor(0.0)}, ahead)
        {'step': tensor(0.), 'per_parameter': {'step': {'b': tensor(0.)}}}
    """
    if not isinstance(state, dict) or not isinstance(other, dict):
        return state
    found = {name: aligned(value, other.get(name)) for name, value in state.items()}
    if PER_PARAMETER in other:
        own = state.get(PER_PARAMETER, {})
        found[PER_PARAMETER] = {
            name: {path: state[name].clone() for path in paths} | own.get(name, {})
            for name, paths in other[PER_PARAMETER].items()
        }
    return found


def is_aligned(state: Any, other: Any) -> bool:
    """Tell whether a state has scalars for all the parameters that `other` has some for."""
    if not isinstance(state, dict) or not isinstance(other, dict):
        return True
    own, theirs = state.get(PER_PARAMETER, {}), other.get(PER_PARAMETER, {})
    if any(paths.keys() - own.get(name, {}).keys() for name, paths in theirs.items()):
        return False
    return all(is_aligned(value, other.get(name)) for name, value in state.items())
