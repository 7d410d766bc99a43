"""Metrics on their way from the device to numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from functrain.core.precision import widest

Sums = dict[str, list[float]]
"""By metric: the sum of value * weight, and the sum of the weights."""


def fetch(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with every 0-dim tensor turned into a number, one transfer for each device.

    Args:
        rows: dicts of tensors and numbers.

    Returns:
        New dicts; floats are exact (float32 values as the doubles they are).

    Example:
        >>> fetch([{"step": 1, "loss": torch.tensor(0.5)}])
        [{'step': 1, 'loss': 0.5}]
    """
    on_device = [
        (row, name, value)
        for row, new in enumerate(rows)
        for name, value in new.items()
        if isinstance(value, Tensor) and not value.is_cpu
    ]
    fetched = [
        {n: v.item() if isinstance(v, Tensor) and v.is_cpu else v for n, v in row.items()}
        for row in rows
    ]
    if on_device:
        wide = widest(on_device[0][2].device)
        values = torch.stack([value.to(wide) for _, _, value in on_device]).tolist()
        for (row, name, _), value in zip(on_device, values, strict=True):
            fetched[row][name] = value
    return fetched


def added(sums: Sums, metrics: Mapping[str, float], weight: float) -> Sums:
    """Weighted sums with one more step.

    Args:
        sums: by metric, ``[sum of value * weight, sum of weight]``; not changed.
        metrics: numbers of the step.
        weight: samples it used.

    Returns:
        New sums.

    Example:
        >>> mean(added(added({}, {"loss": 1.0}, 3), {"loss": 5.0}, 1))
        {'loss': 2.0}
    """
    new = dict(sums)
    for name, value in metrics.items():
        total, weights = sums.get(name, (0.0, 0.0))
        new[name] = [total + value * weight, weights + weight]
    return new


def mean(sums: Sums) -> dict[str, float]:
    """Return the means of weighted sums; metrics that had no weight are left out."""
    return {name: total / weight for name, (total, weight) in sums.items() if weight}
