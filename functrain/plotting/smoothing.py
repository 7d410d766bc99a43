"""Moving means that skip values which are not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from functrain.plotting.decimation import drawable

# Half a window is the sum of about so many pieces; its edges are rounded to them.
_PIECES = 32


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
    parts = [_finite(values[begin : begin + piece]) for begin in range(0, length, piece)]
    sums, counts = [math.fsum(part) for part in parts], [len(part) for part in parts]
    means = []
    for index in range(length) if at is None else at:
        window = slice(max(0, index - half) // piece, (index + half) // piece + 1)
        count = sum(counts[window])
        means.append(sum(sums[window]) / count if count else math.nan)
    return means


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if drawable(value)]
