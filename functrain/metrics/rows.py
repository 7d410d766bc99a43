"""Metrics on their way from the device to numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from functrain.core.precision import widest

Sums = dict[str, list[Any]]
"""By metric: the sum of value * weight, and the sum of the weights; lists of them by member."""


def fetch(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with every tensor turned into a number, one transfer of floats and one of integers.

    A tensor with a value for each member of a population becomes a list, with ``None`` for those
    that had stopped: they have no learning rate.

    Args:
        rows: dicts of tensors and numbers.

    Returns:
        New dicts; floats are exact (float32 values as the doubles they are).

    Example:
        >>> fetch([{"step": 1, "loss": torch.tensor(0.5)}, {"loss": torch.tensor([0.5, 1.0])}])
        [{'step': 1, 'loss': 0.5}, {'loss': [0.5, 1.0]}]
    """
    on_device: dict[bool, list[tuple[int, str, Tensor]]] = {}
    for row, new in enumerate(rows):
        for name, value in new.items():
            if isinstance(value, Tensor) and not value.is_cpu:
                on_device.setdefault(value.is_floating_point(), []).append((row, name, value))
    fetched = [
        {n: v.tolist() if isinstance(v, Tensor) and v.is_cpu else v for n, v in row.items()}
        for row in rows
    ]
    for floats, found in on_device.items():  # a float rounds whole numbers beyond 2**53
        wide = widest(found[0][2].device) if floats else torch.int64
        together = torch.cat([value.to(wide).reshape(-1) for _, _, value in found]).cpu()
        parts = torch.split(together, [value.numel() for _, _, value in found])
        for (row, name, value), part in zip(found, parts, strict=True):
            fetched[row][name] = part.reshape(value.shape).tolist()
    for new in fetched:
        if isinstance(rates := new.get("lr"), list):
            _leave_out(new, rates)
    return fetched


def added(sums: Sums, metrics: Mapping[str, Any], weight: float) -> Sums:
    """Weighted sums with one more step.

    Args:
        sums: by metric, ``[sum of value * weight, sum of weight]``; not changed.
        metrics: numbers of the step, or lists of them by member.
        weight: samples it used.

    Returns:
        New sums.

    Example:
        >>> mean(added(added({}, {"loss": 1.0}, 3), {"loss": 5.0}, 1))
        {'loss': 2.0}
    """
    new = dict(sums)
    for name, value in metrics.items():
        if isinstance(value, list):
            new[name] = _added_each(sums.get(name), value, weight)
            continue
        total, weights = sums.get(name, (0.0, 0.0))
        new[name] = [total + value * weight, weights + weight]
    return new


def mean(sums: Sums) -> dict[str, Any]:
    """Return the means of weighted sums; metrics that had no weight are left out.

    Example:
        >>> mean(added({}, {"loss": [1.0, None]}, 3))
        {'loss': [1.0, None]}
    """
    found: dict[str, Any] = {}
    for name, (total, weight) in sums.items():
        if isinstance(weight, list):
            each = [one / own if own else None for one, own in zip(total, weight, strict=True)]
            found |= {name: each} if any(weight) else {}
        elif weight:
            found[name] = total / weight
    return found


def _leave_out(row: dict[str, Any], rates: list[float | None]) -> None:
    stopped = [member for member, rate in enumerate(rates) if rate is None or math.isnan(rate)]
    for value in row.values() if stopped else ():
        if isinstance(value, list):
            for member in stopped:
                value[member] = None


def _added_each(sums: list[Any] | None, values: list[float | None], weight: float) -> list[Any]:
    totals, weights = sums or ([0.0] * len(values), [0.0] * len(values))
    pairs = zip(values, totals, weights, strict=True)
    each = [(t, w) if v is None else (t + v * weight, w + weight) for v, t, w in pairs]
    return [[total for total, _ in each], [own for _, own in each]]
