"""Trees with an axis of members: stacked, split, and mapped over."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from functrain.errors import ConfigurationError, UnsupportedError
from functrain.populations.gradients import HOOKS
from functrain.transforms.graph.inputs import flatten, with_tensors
from functrain.tree import items as leaves
from functrain.tree import path_string


def stacked(trees: Iterable[Any], members: int, name: str) -> Any:
    """Return one tree whose tensors have the axis of members in front.

    The trees are alike except for the values of tensors; each is read once, so that no more than
    one need be in memory.
    """
    first: Any = None
    found: list[Tensor] = []
    for number, one in enumerate(trees):
        if not number:
            first = one
            found = [leaf.new_empty((members, *leaf.shape)) for leaf in flatten(one)]
        else:
            _require_alike(first, one, number, name)
        for into, leaf in zip(found, flatten(one), strict=True):
            into[number].copy_(leaf)
    return with_tensors(first, iter(found))


def _require_alike(first: Any, other: Any, number: int, name: str) -> None:
    mine, theirs = (
        {path_string(path): leaf for path, leaf in leaves(one)} for one in (first, other)
    )
    for path in [*mine, *(path for path in theirs if path not in mine)]:
        if _form(mine.get(path)) != _form(theirs.get(path)):
            raise ConfigurationError(
                f"{name}.{path} is {_shown(mine, path)} in member 0 and {_shown(theirs, path)} in "
                f"member {number}; members of a population differ in values only"
            )


def rows(tree: Any, members: int | slice | list[int]) -> Any:
    """Return the tree of some members: views of one or of a slice, copies of those in a list."""
    return with_tensors(tree, iter([leaf[members] for leaf in flatten(tree)]))


def member_of(tree: Any, index: int) -> Any:
    """Return the tree of one member, with memory of its own."""
    return combined(lambda leaf: leaf[index].clone(), tree)


def combined(function: Callable[..., Tensor], *trees: Any) -> Any:
    """Return a tree like the first, with what a function makes of the tensors of all."""
    columns = zip(*map(flatten, trees), strict=True)
    return with_tensors(trees[0], itertools.starmap(function, columns))


class UnseenDrawError(Exception):
    """Something was drawn where ``randomness`` is ``"error"``."""


def mapped(
    function: Callable[..., Any],
    axes: Sequence[int | None],
    *trees: Any,
    randomness: str = "different",
) -> Any:
    """Return ``function`` of trees for every member, by ``torch.func.vmap`` over their tensors.

    Only tensors go through it. Other leaves, such as ``None`` and names, are given to
    the function as they are.

    For each tree an axis is 0 where its tensors have an axis of members, ``None`` where all members
    share them.
    """
    held: list[Any] = []
    own = [flatten(tree) for tree in trees]
    dims = tuple(axis for axis, tensors in zip(axes, own, strict=True) for _ in tensors)

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = iter(tensors)
        held.append(function(*[with_tensors(tree, given) for tree in trees]))
        return tuple(flatten(held[-1]))

    mapping = torch.func.vmap(flat, in_dims=dims, randomness=randomness)
    try:
        found = mapping(*[tensor for tensors in own for tensor in tensors])
    except RuntimeError as error:
        if randomness == "error" and "random" in str(error):
            raise UnseenDrawError from error
        if (reason := _reason(error)) is None:
            raise
        raise UnsupportedError(
            f"a population maps the step over its members by torch.func.vmap, and this one cannot "
            f"be mapped: {reason}. Train the members one by one, pop.programs[i]; the error above "
            "names the operation"
        ) from error
    return with_tensors(held[-1], iter(found))


def _reason(error: RuntimeError) -> str | None:
    """Return why torch.func refuses an operation, where the error is that."""
    text = str(error)
    if "different inplace randomness" in text:
        return (
            "it fills a tensor that all members share with random numbers. Draw with torch.randn, "
            "torch.rand or torch.rand_like instead of tensor.normal_() and the like"
        )
    if HOOKS in text:
        return (
            "it uses activation checkpointing (torch.utils.checkpoint) or other hooks on saved "
            "tensors, which torch.func does not support. Leave it out"
        )
    if "atching rule" in text or "vmap" in text or "functorch" in text or "torch.func" in text:
        return text.splitlines()[0]
    return None


def _form(leaf: Any) -> Any:
    return (leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else repr(leaf)


def _shown(tree: dict[str, Any], path: str) -> str:
    if path not in tree:
        return "missing"
    leaf = tree[path]
    return f"{leaf.dtype} {list(leaf.shape)}" if isinstance(leaf, Tensor) else repr(leaf)
