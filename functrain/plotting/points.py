"""Points of a line: fewer for the same picture, and moving means of what has a place in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

# The span of larger values overflows; they are drawn like infinities.
_MOST = 1e300


def is_drawable(values: Any) -> Any:
    """Return for a value, or for each of several, whether it has a place on an axis.

    Example:
        >>> is_drawable([-1e200, 1e301, float("nan")]).tolist(), bool(is_drawable(2.0))
        ([True, False, False], True)
    """
    return np.abs(np.asarray(values, dtype=float)) < _MOST


def decimate(values: Sequence[float], pixels: int) -> list[int]:
    """Return which of many values to draw, so that every spike is still there.

    Return indices in order: all if there is room for all; else the first, the last, and of each
    pixel the least and the greatest, or any one if none can be drawn.

    Example:
        >>> decimate([0.0] * 500 + [9.0] + [0.0] * 500, pixels=2)
        [0, 500, 501, 1000]
    """
    length = len(values)
    if length <= 2 * pixels:
        return list(range(length))
    seen = is_drawable(values)
    low, high = np.where(seen, values, np.inf), np.where(seen, values, -np.inf)
    chosen = {0, length - 1}
    for begin, end in pairwise(length * pixel // pixels for pixel in range(pixels + 1)):
        chosen |= {begin + int(low[begin:end].argmin()), begin + int(high[begin:end].argmax())}
    return sorted(chosen)


def find_undrawable(values: Sequence[float], pixels: int) -> list[int]:
    """Return which values have no place on an axis, at most one for each pixel.

    Example:
        >>> find_undrawable([1.0, float("nan"), 2.0, float("inf")], pixels=600)
        [1, 3]
    """
    missing = np.flatnonzero(~is_drawable(values)).tolist()
    return list({index * pixels // len(values): index for index in missing}.values())


def smooth_values(
    values: Sequence[float], share: float = 0.05, at: Iterable[int] | None = None
) -> list[float]:
    """Return the means of the finite values in a centred window, NaN where it holds none.

    Args:
        values: in order.
        share: width of the window, from 0 to 1 of all values.
        at: indices of the wanted means; by default all.

    Example:
        >>> smooth_values([1.0, 2.0, 3.0, 4.0], share=0.5)
        [1.5, 2.0, 3.0, 3.5]
    """
    numbers, half = np.asarray(values, dtype=float), round(len(values) * share / 2)
    finite = is_drawable(numbers)
    # Differences of running sums would be quicker, but a huge value would cancel all after it.
    means = []
    for index in range(len(numbers)) if at is None else at:
        window = slice(max(0, index - half), index + half + 1)
        seen = numbers[window][finite[window]]
        means.append(float(seen.mean()) if len(seen) else math.nan)
    return means
