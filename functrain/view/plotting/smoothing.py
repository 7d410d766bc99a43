"""Moving means that pass over what is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from functrain.view.plotting.decimation import drawable

# A window is added up from at least so many pieces on each side; its edges are rounded to them.
_PIECES = 32


def smoothed(
    values: Sequence[float], share: float = 0.05, at: Iterable[int] | None = None
) -> list[float]:
    """Means of what is finite in a centred window over a share of the values.

    Args:
        values: in order.
        share: width of the window, from 0 to 1 of all values.
        at: where means are wanted; by default everywhere.

    Returns:
        A mean for each; NaN where the window holds nothing finite.

    Example:
        >>> smoothed([1.0, 2.0, 3.0, 4.0], share=0.5)
        [1.5, 2.0, 3.0, 3.5]
        >>> smoothed([1.0, 2.0, 3.0, 4.0], share=0.5, at=[2])
        [3.0]
    """
    half, length = round(len(values) * share / 2), len(values)
    # Sums of short pieces: the time does not depend on the window's width. Differences of running
    # sums would be quicker, but one huge value would leave nothing of all that come after it.
    piece = max(1, half // _PIECES)
    parts = [_finite(values[begin : begin + piece]) for begin in range(0, length, piece)]
    sums, counts = [math.fsum(part) for part in parts], [len(part) for part in parts]
    means = []
    for place in range(length) if at is None else at:
        window = slice(max(0, place - half) // piece, (place + half) // piece + 1)
        count = sum(counts[window])
        means.append(sum(sums[window]) / count if count else math.nan)
    return means


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if drawable(value)]
