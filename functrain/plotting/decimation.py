"""Fewer points for the same picture: the least and the greatest value of each pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

# The span of larger values overflows; they are drawn like infinities.
_MOST = 1e300


def drawable(value: float) -> bool:
    """Return whether a value has a place on an axis.

    Example:
        >>> drawable(-1e200), drawable(1e301), drawable(float("nan"))
        (True, False, False)
    """
    return -_MOST < value < _MOST


def decimated(values: Sequence[float], pixels: int) -> list[int]:
    """Return which of many values to draw, so that every spike is still there.

    Args:
        values: evenly spaced.
        pixels: width of the picture; each pixel keeps at most two values.

    Returns:
        Indices in order: all if there is room for all; else the first, the last, and of each pixel
        the least and the greatest, or any one if none can be drawn.

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


def _extremes(values: Sequence[float], begin: int, end: int) -> Iterator[int]:
    part = values[begin:end]
    if not drawable(sum(part)):
        part = [value for value in part if drawable(value)]
        if not part:
            yield begin
            return
    for extreme in (min(part), max(part)):
        yield values.index(extreme, begin, end)
