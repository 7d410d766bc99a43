"""A number multiplied many times over, which may grow beyond what floats hold."""

from __future__ import annotations

import math


def multiplied(value: float, factor: float, times: int) -> float:
    """Return ``value * factor**times``, infinity where that is too large for a float.

    Example:
        >>> multiplied(0.5, 2.0, 3), multiplied(0.5, 2.0, 10**6), multiplied(0.0, 2.0, 10**6)
        (4.0, inf, 0.0)
    """
    try:
        return value * factor**times
    except OverflowError:
        return math.inf if value > 0 else 0.0
