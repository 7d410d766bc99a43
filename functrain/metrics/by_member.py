"""Metrics of a population: a value of each member, ``None`` of one that has stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from functrain.core.schedule import Mode
from functrain.metrics.mode import mode_of_name

Each: TypeAlias = Sequence[float | None]


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with one number under each name: ``loss/3`` is that of member 3.

    Example:
        >>> flat({"step": 1, "loss": [0.5, None, 0.25]})
        {'step': 1, 'loss/0': 0.5, 'loss/2': 0.25}
    """
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, list):
            each = {f"{name}/{member}": one for member, one in enumerate(value)}
            found |= {key: one for key, one in each.items() if one is not None}
        else:
            found[name] = value
    return found


def of_member(row: Mapping[str, Any], member: int) -> dict[str, Any]:
    """Return the row of one member, without metrics that it lacks.

    Example:
        >>> of_member({"step": 1, "loss": [0.5, None]}, 0), of_member({"loss": [0.5, None]}, 1)
        ({'step': 1, 'loss': 0.5}, {})
    """
    own = {name: v[member] if isinstance(v, list) else v for name, v in row.items()}
    return {name: value for name, value in own.items() if value is not None}


def best_member(values: Each, mode: Mode) -> int | None:
    """Return the member with the best finite value, the first of several.

    Example:
        >>> best_member([0.5, math.nan, 0.2, None], "min"), best_member([None, math.nan], "max")
        (2, None)
    """
    finite = [(one, n) for n, one in enumerate(values) if one is not None and math.isfinite(one)]
    if not finite:
        return None
    sign = 1 if mode == "min" else -1
    return min(finite, key=lambda pair: (sign * pair[0], pair[1]))[1]


def extremes(values: Each) -> tuple[float, float]:
    """Return the least and the greatest finite value; NaN where there is none.

    Example:
        >>> extremes([0.5, None, math.nan, 0.2])
        (0.2, 0.5)
    """
    finite = [one for one in values if one is not None and math.isfinite(one)]
    return (min(finite), max(finite)) if finite else (math.nan, math.nan)


def text(name: str, value: Any) -> str:
    """Return a metric for people; of several members the best and the worst.

    Example:
        >>> text("loss", 0.25), text("loss", [0.5, 0.25, 1.0]), text("lr", [0.1, 0.1])
        ('loss 0.25', 'loss 0.25 (member 1) to 1', 'lr 0.1')
    """
    if not isinstance(value, list):
        return f"{name} {value:.4g}"
    low, high = extremes(value)
    mode = mode_of_name(name)
    best = None if mode is None else best_member(value, mode)
    if low == high or not math.isfinite(low):
        return f"{name} {low:.4g}"
    if mode is None or best is None:
        return f"{name} {low:.4g} to {high:.4g}"
    near, far = (low, high) if mode == "min" else (high, low)
    return f"{name} {near:.4g} (member {best}) to {far:.4g}"
