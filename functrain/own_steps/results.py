"""Checks of functions of the user: their arguments, and what they return."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from enum import Enum
from numbers import Number
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.core.loss import Loss, LossOutput, computed, is_metric, scalar
from functrain.errors import ConfigurationError, StepResultError
from functrain.errors.nearest import nearest
from functrain.tree import NamedDict
from functrain.tree.frozen_dict import kind
from functrain.tree.objects import is_array

# The log of a run has these of its own.
_RESERVED = ("step", "epoch")
_LEAVES = (Tensor, Number, str, bytes, Enum, type(None), torch.dtype, torch.device)


def check_function(function: object, what: str, names: tuple[str, ...]) -> None:
    """Refuse a function that cannot be called with these arguments by position."""
    takes = f"a function ({', '.join(names)})"
    if not callable(function):
        raise ConfigurationError(f"{what}: expected {takes}, got {function!r}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have no signature
        return
    try:
        signature.bind(*names)
    except TypeError as error:
        own = getattr(function, "__name__", type(function).__name__)
        raise ConfigurationError(
            f"{what}: expected {takes}, got {own}{signature}, which does not take them: {error}"
        ) from None


def check_leaves(value: Any, where: str) -> None:
    """Refuse a tree with leaves that no checkpoint can hold."""
    problems = [
        f"{_place(where, path)} is a {type(leaf).__name__}{_hint(leaf)}"
        for path, leaf in tree.items(value)
        if not (isinstance(leaf, _LEAVES) or is_array(leaf) or type(leaf).__module__ == "numpy")
    ]
    if problems:
        raise StepResultError(
            f"{where}: expected tensors, numbers and text in dicts, lists, tuples, named tuples "
            "or attrs classes, of which a checkpoint is made, got",
            problems,
        )


def _hint(leaf: Any) -> str:
    if isinstance(leaf, torch.nn.Module):
        return (
            ", which has a state of its own: keep dict(module.named_parameters()), and call it by "
            "torch.func.functional_call"
        )
    return ""


def detached(value: Any) -> Any:
    """Return a tree whose tensors belong to no graph, which would grow from step to step.

    An ``nn.Parameter`` becomes the tensor in it.
    """
    if not any(_is_attached(leaf) for _, leaf in tree.items(value)):
        return value
    return tree.map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, value)


def _is_attached(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and (leaf.requires_grad or type(leaf) is torch.nn.Parameter)


def check_like(before: Any, after: Any, where: str, what: str) -> None:
    """Refuse a tree of another structure, dtype, shape or device."""
    problems = list(_differences(before, after, where))
    if problems:
        raise StepResultError(
            f"{what} must return a tree like the one it was given, which checkpoints and the next "
            "step expect. These differ",
            problems,
        )


def _differences(before: Any, after: Any, where: str) -> Iterator[str]:
    if kind(before) is not kind(after):
        yield f"{where} is {_named(after)}, expected {_named(before)}"
    elif tree.is_node(before):
        ours, theirs = dict(tree.children(before)), dict(tree.children(after))
        for key in (key for key in ours if key not in theirs):
            yield f"{_place(where, (key,))} is missing"
        for key in (key for key in theirs if key not in ours):
            yield f"{_place(where, (key,))} is unexpected{nearest(str(key), map(str, ours))}"
        for key in ours:
            if key in theirs:
                yield from _differences(ours[key], theirs[key], _place(where, (key,)))
    elif isinstance(before, Tensor) or is_array(before):
        for name in ("dtype", "shape", "device"):
            one, other = (getattr(leaf, name, None) for leaf in (before, after))
            if one != other:
                got, expected = (list(x) if isinstance(x, tuple) else x for x in (other, one))
                yield f"{where} has the {name} {got}, expected {expected}"


def _named(value: Any) -> str:
    if isinstance(value, Tensor) or is_array(value):
        what = "an array" if is_array(value) else "a tensor"
        return f"{what} of shape {list(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"


def _place(where: str, path: tree.Path) -> str:
    return ".".join([where, *map(str, path)])


def pair(returned: Any, what: str, first: str) -> tuple[Any, Mapping[str, Any]]:
    """Return the two values that a step returned."""
    if isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], Mapping):
        return returned
    if isinstance(returned, tuple) and len(returned) == 2:
        got = f"({_named(returned[0])}, {_named(returned[1])})"
    else:
        got = _named(returned)
    raise StepResultError(
        f"{what} must return ({first}, metrics), with the metrics as a dict by name; got {got}"
    )


def metrics(found: Mapping[str, Any], device: torch.device, what: str) -> NamedDict:
    """Return the metrics of a step as 0-dim tensors."""
    values = _checked(found, device, what)
    return NamedDict(computed(values, device))


def loss_output(returned: Any, device: torch.device, what: str) -> LossOutput:
    """Return the result of an evaluation."""
    found: dict[str, Any] = {}
    loss: Any = None
    weight: Any = None
    if isinstance(returned, Loss):
        loss, weight, found = returned.value, returned.weight, dict(returned.metrics)
    elif isinstance(returned, Mapping):
        found = dict(returned)
        loss = found.pop("loss", None)
    elif isinstance(returned, Tensor | float | int):
        loss = returned
    else:
        raise StepResultError(
            f"{what} must return metrics by name, a functrain.Loss or a scalar; got "
            f"{_named(returned)}"
        )
    value: Any = None if loss is None else _checked({"loss": loss}, device, what)["loss"]
    if isinstance(weight, Tensor):
        weight = weight.detach()
    return LossOutput(value, weight, _checked(found, device, what))


def _checked(found: Mapping[str, Any], device: torch.device, what: str) -> dict[str, Any]:
    values, problems = {}, []
    for name, value in found.items():
        if name in _RESERVED:
            problems.append(f"{name!r}: the log has its own under this name")
        elif (one := scalar(value, device)) is not None or is_metric(value):
            values[name] = value if one is None else one
        else:
            problems.append(f"{name!r} is {_named(value)}")
    if problems:
        raise StepResultError(f"metrics of {what}: expected numbers and scalar tensors", problems)
    return values
