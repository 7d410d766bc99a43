"""Points of a line: fewer for the same picture, and moving means of what has a place in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

# The span of larger values overflows; they are drawn like infinities.
_MOST = 1e300
# Half a window is the sum of about so many pieces; its edges are rounded to them.
_PIECES = 32


def drawable(value: float) -> bool:
    """Return whether a value has a place on an axis.

    Example:
        >>> drawable(-1e200), drawable(1e301), drawable(float("nan"))
        (True, False, False)
    """
    return -_MOST < value < _MOST


def decimated(values: Sequence[float], pixels: int) -> list[int]:
    """Return which of many values to draw, so that every spike is still there.

    Return indices in order: all if there is room for all; else the first, the last, and of each
    pixel the least and the greatest, or any one if none can be drawn.

    Example:
        >>> decimated([0.0] * 500 + [9.0] + [0.0] * 500, pixels=2)
        [0, 500, 501, 1000]
    """
    length = len(values)
    if length <= 2 * pixels:
        return list(range(length))
    edges = [length * pixel // pixels for pixel in range(pixels + 1)]
    chosen: dict[int, None] = {0: None}
    for begin, end in pairwise(edges):
        chosen |= dict.fromkeys(sorted(_extremes(values, begin, end)))
    return sorted({*chosen, length - 1})


def undrawable(values: Sequence[float], pixels: int) -> list[int]:
    """Return which values have no place on an axis, at most one for each pixel.

    Example:
        >>> undrawable([1.0, float("nan"), 2.0, float("inf")], pixels=600)
        [1, 3]
    """
    if drawable(sum(values)):  # a quick answer: one undrawable value spoils the sum
        return []
    found = {
        index * pixels // len(values): index
        for index, value in enumerate(values)
        if not drawable(value)
    }
    return list(found.values())


def smoothed(
    values: Sequence[float], share: float = 0.05, at: Iterable[int] | None = None
) -> list[float]:
    """Return the means of the finite values in a centred window.

    Args:
        values: in order.
        share: width of the window, from 0 to 1 of all values.
        at: indices of the wanted means; by default all.

    Returns:
        A mean for each; NaN where the window holds nothing finite.

    Example:
        >>> smoothed([1.0, 2.0, 3.0, 4.0], share=0.5)
        [1.5, 2.0, 3.0, 3.5]
        >>> smoothed([1.0, 2.0, 3.0, 4.0], share=0.5, at=[2])
        [3.0]
    """
    half, length = round(len(values) * share / 2), len(values)
    # Sums of short pieces make the time independent of the window's width. Differences of running
    # sums would be quicker, but one huge value would cancel all values after it.
    piece = max(1, half // _PIECES)
    pieces = (values[begin : begin + piece] for begin in range(0, length, piece))
    parts = [list(filter(drawable, each)) for each in pieces]
    sums, counts = [math.fsum(part) for part in parts], [len(part) for part in parts]
    means = []
    for index in range(length) if at is None else at:
        window = slice(max(0, index - half) // piece, (index + half) // piece + 1)
        count = sum(counts[window])
        means.append(sum(sums[window]) / count if count else math.nan)
    return means


def _extremes(values: Sequence[float], begin: int, end: int) -> Iterator[int]:
    part = values[begin:end]
    if not drawable(sum(part)):
        part = [value for value in part if drawable(value)]
        if not part:
            yield begin
            return
    for extreme in (min(part), max(part)):
        yield values.index(extreme, begin, end)
