"""A learning rate given by points: steps, or a line through them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import attrs

from functrain.core.schedule import Schedule, ScheduleState
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import is_integer, one_of, plain
from functrain.schedules.fields import plain_float

Point = tuple[int, float]
_Shape: TypeAlias = Literal["constant", "linear", "cosine"]


def _as_points(given: Mapping[int, float] | Iterable[tuple[int, float]]) -> Any:
    pairs = given.items() if isinstance(given, Mapping) else given
    try:
        return tuple((plain(step), plain_float(lr)) for step, lr in pairs)
    except (TypeError, ValueError):
        return given  # the validator says what is wrong with it


def _is_point(step: Any, lr: Any) -> bool:
    return is_integer(step) and isinstance(lr, float) and math.isfinite(lr) and lr >= 0


def _check_points(instance: Piecewise, attribute: attrs.Attribute[Any], points: Any) -> None:
    if not isinstance(points, tuple) or not all(_is_point(*point) for point in points):
        raise ConfigurationError(
            "Piecewise: points: expected {step: lr} with integers and finite numbers >= 0, got "
            f"{points!r}"
        )
    if not points or points[0][0] != 0 or any(b <= a for (a, _), (b, _) in pairwise(points)):
        raise ConfigurationError(
            f"Piecewise: the steps of points must rise from 0, got {[step for step, _ in points]}"
        )


@explained
@attrs.frozen(repr=False)
class Piecewise(Schedule):
    """Learning rates at given steps; between them the last one, a line or half a cosine wave.

    With "constant", the lr is the one of the last point at or before the step:
    `optax.piecewise_constant_schedule`, whose scales are the ratios of neighbours. With
    "linear" or "cosine" it goes from each point to the next in a straight line or half a cosine
    wave: `optax.piecewise_interpolate_schedule`. After the last point it is constant.

    Args:
        points: {step: lr}, or (step, lr) pairs, rising from step 0.
        shape: "constant", "linear" or "cosine".

    Example:
        >>> schedule = Piecewise({0: 0.0, 2: 1.0, 4: 0.5}, shape="linear")
        >>> [schedule(step) for step in range(6)]
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.5]
    """

    points: tuple[Point, ...] = attrs.field(converter=_as_points, validator=_check_points)
    shape: _Shape = attrs.field(default="constant", validator=one_of(_Shape))

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the lr of the piece that `step` is in."""
        index = bisect_right(self.points, step, key=lambda point: point[0]) - 1
        begin, low = self.points[index]
        if self.shape == "constant" or index + 1 == len(self.points):
            return low
        end, high = self.points[index + 1]
        part = (step - begin) / (end - begin)
        if self.shape == "linear":
            return low + (high - low) * part
        return high + (low - high) / 2 * (math.cos(math.pi * part) + 1)
