"""Copies of trees of tensors, in few calls for many leaves."""

from __future__ import annotations

import copy as shallow
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from functrain.tree import nodes

T = TypeVar("T")
_TENSOR = frozenset({Tensor})


def copy(value: T) -> T:
    """Return a copy of a tree that shares no memory with it.

    Args:
        value: any tree, such as a ``TrainState`` that is about to be donated.

    Returns:
        A tree of the same structure with cloned tensors.

    Example:
        >>> ours = {"w": torch.zeros(2)}
        >>> theirs = copy(ours)
        >>> _ = ours["w"].add_(1)
        >>> theirs["w"]
        tensor([0., 0.])
    """
    return cast(T, _copied(value))


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict) and value and _TENSOR.issuperset(map(type, value.values())):
        return dict(zip(value, clones(list(value.values())), strict=True))
    if type(value).__module__ == "numpy":  # an array or an immutable scalar
        return shallow.copy(value)
    if nodes.is_node(value):
        return nodes.rebuild(value, [_copied(child) for _, child in nodes.children(value)])
    return value


def clones(tensors: list[Tensor]) -> list[Tensor]:
    """Clone many tensors, in one call if torch supports it (2.12 and later)."""
    if hasattr(torch, "_foreach_clone"):
        return list(torch._foreach_clone(tensors))
    return [tensor.clone() for tensor in tensors]
