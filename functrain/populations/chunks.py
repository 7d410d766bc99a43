"""A step of all members, some of them at a time.

Activations of few members take less memory, and stay in the processor's caches. A member has the
same bytes in every group of two or more.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain.transforms.graph.inputs import flatten, with_tensors


def slices(members: int, chunk_size: int | None) -> list[slice]:
    """Return groups of members that differ in size by one at most, none of a single member.

    Args:
        members: how many there are.
        chunk_size: of the largest group (3 instead of 2 where one would be left over); ``None``
            for all members.

    Example:
        >>> [(one.start, one.stop) for one in slices(10, 4)]
        [(0, 4), (4, 7), (7, 10)]
    """
    count = -(-members // (chunk_size or members))
    count = max(1, min(count, members // 2))
    size, longer = divmod(members, count)
    ends = [size * n + min(n, longer) for n in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def part(tree: Any, members: slice) -> Any:
    """Return views of some members of a tree whose tensors have the axis of members in front."""
    return with_tensors(tree, iter([leaf[members] for leaf in flatten(tree)]))


def joined(trees: list[Any]) -> Any:
    """Return one tree of the members of several."""
    return with_tensors(trees[0], map(torch.cat, zip(*map(flatten, trees), strict=True)))


def in_chunks(
    step: Callable[[Any, slice], tuple[Any, Any]], state: Any, chunks: list[slice]
) -> tuple[Any, Any]:
    """Make a step of each group of members.

    Args:
        step: from views of the state of some members to their next state, which it may write over
            these views, and outputs.
        state: of all members.
        chunks: see :func:`slices`.

    Returns:
        (state, outputs) of all members; without a copy where each step has written to its views.
    """
    if len(chunks) == 1:
        return step(state, chunks[0])
    given = [part(state, members) for members in chunks]
    found = [step(own, members) for own, members in zip(given, chunks, strict=True)]
    after, outputs = [one for one, _ in found], joined([one for _, one in found])
    views, new = [flatten(one) for one in given], [flatten(one) for one in after]
    if len(new[0]) != len(views[0]):  # a first step may add counts to an optimizer's state
        return joined(after), outputs
    columns = zip(flatten(state), zip(*views, strict=True), zip(*new, strict=True), strict=True)
    return with_tensors(after[0], iter([_whole(*column) for column in columns])), outputs


def _whole(old: Tensor, views: tuple[Tensor, ...], new: tuple[Tensor, ...]) -> Tensor:
    in_place = all(one is view for one, view in zip(new, views, strict=True))
    return old if in_place else torch.cat(new)
