"""Which checkpoints to keep and which is best: pure functions of steps and metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any


def ranked(metrics: Mapping[int, Mapping[str, Any]], monitor: str, mode: str) -> list[int]:
    """Steps from best to worst.

    Args:
        metrics: metrics by step.
        monitor: the metric that counts. A step that lacks it, or where it is not finite, is left
            out; of equal ones the earlier is better.
        mode: ``"min"`` or ``"max"``.

    Example:
        >>> ranked({1: {"loss": 0.5}, 2: {"loss": math.nan}, 3: {"loss": 0.2}}, "loss", "min")
        [3, 1]
    """
    values = {step: named[monitor] for step, named in metrics.items() if monitor in named}
    sign = 1 if mode == "min" else -1
    usable = [step for step, value in values.items() if _is_finite(value)]
    return sorted(usable, key=lambda step: (sign * values[step], step))


def dispensable(
    steps: Iterable[int], best: Iterable[int], keep_last: int | None, just_saved: int | None
) -> list[int]:
    """Steps whose checkpoints may go.

    Args:
        steps: all there are.
        best: those kept for being best.
        keep_last: how many of the highest steps to keep; ``None``: all.
        just_saved: kept whatever its step is: a run that was rewound saves below older steps.

    Example:
        >>> dispensable([10, 20, 30, 40], best=[20], keep_last=1, just_saved=40)
        [10, 30]
    """
    if keep_last is None:
        return []
    ordered = sorted(steps)
    kept = {*ordered[-keep_last:], *best, just_saved}
    return [step for step in ordered if step not in kept]


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
