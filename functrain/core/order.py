"""The order in which the parts of a step are summed: a binary tree over their numbers.

Floating-point addition is not associative, so a sum has the same bits only if its terms are added
in the same order. Here the order depends on the number of parts alone, not on who computes which:
a rank adds up whole subtrees of its own parts, and the sums above them are the same everywhere.

Everything here is a function of integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

Node: TypeAlias = tuple[int, int]
"""The sum of the parts from the first number up to, but not including, the second."""

T = TypeVar("T")


def share(parts: int, rank: int, ranks: int) -> Node:
    """Return the parts that a rank computes: consecutive, and as many as others have, or one more.

    Where the parts are fewer than the ranks, some ranks have none.

    Example:
        >>> [share(4, rank, 3) for rank in range(3)]
        [(0, 1), (1, 2), (2, 4)]
    """
    return rank * parts // ranks, (rank + 1) * parts // ranks


def nodes(parts: int, start: int, stop: int) -> list[Node]:
    """Return the largest subtrees over parts from ``start`` to ``stop``, in order.

    These are the sums that can be formed without any other part.

    Example:
        >>> nodes(8, 2, 7)
        [(2, 4), (4, 6), (6, 7)]
    """
    return _nodes((0, parts), start, stop)


def merges(parts: int, start: int, stop: int) -> list[int]:
    """Return for each part from ``start`` to ``stop`` how many sums are complete with it.

    With the sums on a stack: put the part on it, then add the last sum to the one before, so many
    times. In the end the stack holds the sums of :func:`nodes`.

    Example:
        >>> merges(4, 0, 4)
        [0, 1, 0, 2]
    """
    return [count for node in nodes(parts, start, stop) for count in _merges(*node)]


def tree_sum(parts: int, sums: Mapping[Node, T], add: Callable[[T, T], T]) -> T:
    """Return the sum of all parts from those of subtrees that cover all once; see :func:`nodes`.

    Example:
        >>> tree_sum(4, {(0, 2): "ab", (2, 3): "c", (3, 4): "d"}, lambda x, y: f"({x}+{y})")
        '(ab+(c+d))'
    """
    return _sum((0, parts), sums, add)


def _halves(node: Node) -> tuple[Node, Node]:
    start, stop = node
    middle = (start + stop) // 2
    return (start, middle), (middle, stop)


def _nodes(node: Node, start: int, stop: int) -> list[Node]:
    if start <= node[0] and node[1] <= stop:
        return [node]
    if node[1] <= start or stop <= node[0]:
        return []
    left, right = _halves(node)
    return _nodes(left, start, stop) + _nodes(right, start, stop)


def _merges(start: int, stop: int) -> list[int]:
    if stop - start < 2:
        return [0] * (stop - start)
    left, right = _halves((start, stop))
    counts = _merges(*left) + _merges(*right)
    counts[-1] += 1
    return counts


def _sum(node: Node, sums: Mapping[Node, T], add: Callable[[T, T], T]) -> T:
    if node in sums:
        return sums[node]
    left, right = _halves(node)
    return add(_sum(left, sums, add), _sum(right, sums, add))
