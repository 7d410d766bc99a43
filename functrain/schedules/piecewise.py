"""Learning rates in pieces: jumps every so many steps or at given ones, or a line of points."""

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
from functrain.errors.validators import integer, is_integer, number, one_of, plain
from functrain.schedules.fields import multiplied, plain_float


@explained
@attrs.frozen(repr=False)
class Step(Schedule):
    """Multiply the learning rate by `factor` once every so many steps.

    Formula: lr * factor**(step // every), the closed form of
    `torch.optim.lr_scheduler.StepLR` with step_size = every and gamma = factor, and
    `optax.exponential_decay` with transition_steps = every and staircase=True.

    Args:
        lr: the learning rate of the first update.
        every: how many updates have the same one.
        factor: what to multiply it with, at least 0; above 1 the learning rate grows.

    Example:
        >>> schedule = Step(1.0, every=2, factor=0.5)
        >>> [schedule(step) for step in range(5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    every: int = attrs.field(validator=integer(minimum=1))
    factor: float = attrs.field(default=0.1, converter=plain_float, validator=number(minimum=0))

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the lr after the multiplications up to `step`."""
        return multiplied(self.base, self.factor, step // self.every)


def _as_tuple(values: Iterable[int]) -> Any:
    return tuple(map(plain, values)) if isinstance(values, Iterable) else values


def _check_milestones(instance: MultiStep, attribute: attrs.Attribute[Any], value: Any) -> None:
    whole = isinstance(value, tuple) and all(is_integer(step, 0) for step in value)
    if not whole or list(value) != sorted(value):
        raise ConfigurationError(
            f"MultiStep: milestones: expected integers >= 0 in rising order, got {value!r}"
        )


@explained
@attrs.frozen(repr=False)
class MultiStep(Schedule):
    """Multiply the learning rate by `factor` at each of the milestones.

    Formula: lr * factor**n, with n the number of milestones up to `step`; the closed form of
    `torch.optim.lr_scheduler.MultiStepLR` with gamma = factor, and
    `optax.piecewise_constant_schedule` with every scale = factor. For other values at each one
    see Piecewise.

    Args:
        lr: the learning rate of the first update.
        milestones: updates that are the first of a new learning rate, rising; one that is there
            twice multiplies twice.
        factor: what to multiply it with, at least 0; above 1 the learning rate grows.

    Example:
        >>> schedule = MultiStep(1.0, milestones=[2, 3], factor=0.5)
        >>> [schedule(step) for step in range(5)]
        [1.0, 1.0, 0.5, 0.25, 0.25]
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    milestones: tuple[int, ...] = attrs.field(converter=_as_tuple, validator=_check_milestones)
    factor: float = attrs.field(default=0.1, converter=plain_float, validator=number(minimum=0))

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the lr after the milestones up to `step`."""
        return multiplied(self.base, self.factor, bisect_right(self.milestones, step))


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
