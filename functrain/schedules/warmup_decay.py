"""A straight climb from zero to the learning rate, then a decay to the end of the run."""

from __future__ import annotations

import math
from typing import Any

import attrs

from functrain.core.schedule import Schedule, ScheduleState
from functrain.errors.validators import integer, number, optional
from functrain.schedules.fields import exactly_one, plain_float
from functrain.schedules.total_steps import check_total_steps, known_total_steps


def _warmup_state(
    schedule: WarmupLinear | WarmupCosine, steps: int | None, warmup: int | None
) -> ScheduleState:
    if steps is None:
        return {"horizon": None, "warmup": warmup}
    if warmup is None:
        assert schedule.warmup_proportion is not None
        warmup = round(schedule.warmup_proportion * steps)
    return {"horizon": check_total_steps(schedule, steps, warmup), "warmup": warmup}


def _check_fits(schedule: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    schedule.init()


@attrs.frozen(repr=False)
class WarmupLinear(Schedule):
    """Linear warmup from 0 to `lr`, then the straight line to `end`.

    Formula, with W the warmup and T the horizon: lr * step / W before W, then
    lr + (end - lr) * (step - W) / (T - W), then `end`; with end = 0 it is the
    `get_linear_schedule_with_warmup` of transformers.

    Args:
        lr: the learning rate at the top, that of update number W.
        warmup_steps: W; or
        warmup_proportion: W as a part of the horizon, rounded to the nearest step.
        steps: T; None is the length of the run.
        end: the learning rate from update number T on.

    Example:
        >>> schedule = WarmupLinear(1.0, warmup_steps=2, steps=6)
        >>> [schedule(step) for step in range(8)]
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    warmup_steps: int | None = attrs.field(
        default=None, kw_only=True, validator=optional(integer(minimum=0))
    )
    warmup_proportion: float | None = attrs.field(
        default=None,
        kw_only=True,
        converter=attrs.converters.optional(plain_float),
        validator=[
            optional(number(minimum=0, maximum=1)),
            exactly_one("warmup_steps", "warmup_proportion"),
        ],
    )
    end: float = attrs.field(
        default=0.0, kw_only=True, converter=plain_float, validator=number(minimum=0)
    )
    steps: int | None = attrs.field(
        default=None,
        kw_only=True,
        validator=[optional(integer(minimum=1)), _check_fits],
    )

    def init(self) -> ScheduleState:
        """Return {"horizon": T, "warmup": W}, None for what the run's length decides."""
        return _warmup_state(self, self.steps, self.warmup_steps)

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the lr on the way up, on the way down, or at the end."""
        horizon = known_total_steps(self, state)
        warmup: int = state["warmup"]
        if step < warmup:
            return self.base * step / warmup
        if step >= horizon:
            return self.end
        return self.base + (self.end - self.base) * (step - warmup) / (horizon - warmup)

    def with_horizon(self, state: ScheduleState, steps: int) -> ScheduleState:
        """Return the state with `steps` as its horizon, if it had none."""
        if state["horizon"] is not None:
            return state
        return _warmup_state(self, steps, state["warmup"])


@attrs.frozen(repr=False)
class WarmupCosine(Schedule):
    """Linear warmup from 0 to `lr`, then half a cosine wave to `end`.

    Formula, with W the warmup and T the horizon: lr * step / W before W, then
    end + (lr - end) * (1 + cos(pi * (step - W) / (T - W))) / 2, then `end`; with end = 0 it
    is the `get_cosine_schedule_with_warmup` of transformers.

    Args:
        lr: the learning rate at the top, that of update number W.
        warmup_steps: W; or
        warmup_proportion: W as a part of the horizon, rounded to the nearest step.
        steps: T; None is the length of the run.
        end: the learning rate from update number T on.

    Example:
        >>> schedule = WarmupCosine(1.0, warmup_proportion=0.5, steps=4)
        >>> [round(schedule(step), 3) for step in range(6)]
        [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    warmup_steps: int | None = attrs.field(
        default=None, kw_only=True, validator=optional(integer(minimum=0))
    )
    warmup_proportion: float | None = attrs.field(
        default=None,
        kw_only=True,
        converter=attrs.converters.optional(plain_float),
        validator=[
            optional(number(minimum=0, maximum=1)),
            exactly_one("warmup_steps", "warmup_proportion"),
        ],
    )
    end: float = attrs.field(
        default=0.0, kw_only=True, converter=plain_float, validator=number(minimum=0)
    )
    steps: int | None = attrs.field(
        default=None,
        kw_only=True,
        validator=[optional(integer(minimum=1)), _check_fits],
    )

    def init(self) -> ScheduleState:
        """Return {"horizon": T, "warmup": W}, None for what the run's length decides."""
        return _warmup_state(self, self.steps, self.warmup_steps)

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the lr on the way up, on the way down, or at the end."""
        horizon = known_total_steps(self, state)
        warmup: int = state["warmup"]
        if step < warmup:
            return self.base * step / warmup
        if step >= horizon:
            return self.end
        progress = (step - warmup) / (horizon - warmup)
        return self.end + (self.base - self.end) * (1 + math.cos(math.pi * progress)) / 2

    def with_horizon(self, state: ScheduleState, steps: int) -> ScheduleState:
        """Return the state with `steps` as its horizon, if it had none."""
        if state["horizon"] is not None:
            return state
        return _warmup_state(self, steps, state["warmup"])
