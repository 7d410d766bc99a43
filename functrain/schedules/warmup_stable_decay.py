"""A climb, a long plain, and a short way down at the end of the run."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import attrs

from functrain.core.schedule import Schedule, ScheduleState
from functrain.errors import ConfigurationError
from functrain.errors.validators import integer, number, one_of, optional
from functrain.schedules.fields import exactly_one, plain_float
from functrain.schedules.total_steps import check_total_steps, known_total_steps

_Shape: TypeAlias = Literal["linear", "cosine", "sqrt"]


def _length(steps: int | None, proportion: float | None, horizon: int) -> int:
    """Return the given steps, or the proportion of the horizon to the nearest step."""
    if steps is not None:
        return steps
    assert proportion is not None
    return round(proportion * horizon)


def _check_fits(schedule: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    schedule.init()


@attrs.frozen(repr=False)
class WarmupStableDecay(Schedule):
    """Linear warmup from 0 to `lr`, `lr` for most of the run, then a decay to `end`.

    The schedule of MiniCPM (Hu et al., 2024), also called trapezoidal. Formula, with W the
    warmup, D the decay and T the horizon: lr * step / W before W, then lr until T - D, then
    end + (lr - end) * f(p) with p = (step - (T - D)) / D, then `end`. f is 1 - p for "linear",
    (1 + cos(pi * p)) / 2 for "cosine", and 1 - sqrt(p) for "sqrt", which Hägele et al. (2024)
    found best. It is `get_wsd_schedule` of transformers, whose decay types are linear, cosine
    and 1-sqrt, and whose stable steps are T - D - W.

    Args:
        lr: the learning rate of the plain.
        warmup_steps: W; or
        warmup_proportion: W as a part of the horizon, rounded to the nearest step.
        decay_steps: D; or
        decay_proportion: D as a part of the horizon, rounded to the nearest step.
        shape: "linear", "cosine" or "sqrt".
        end: the learning rate from update number T on.
        steps: T; None is the length of the run.

    Example:
        >>> schedule = WarmupStableDecay(1.0, warmup_steps=2, decay_proportion=0.5, steps=8)
        >>> [schedule(step) for step in range(9)]
        [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
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
    decay_steps: int | None = attrs.field(
        default=None, kw_only=True, validator=optional(integer(minimum=0))
    )
    decay_proportion: float | None = attrs.field(
        default=None,
        kw_only=True,
        converter=attrs.converters.optional(plain_float),
        validator=[
            optional(number(minimum=0, maximum=1)),
            exactly_one("decay_steps", "decay_proportion"),
        ],
    )
    shape: _Shape = attrs.field(default="linear", kw_only=True, validator=one_of(_Shape))
    end: float = attrs.field(
        default=0.0, kw_only=True, converter=plain_float, validator=number(minimum=0)
    )
    steps: int | None = attrs.field(
        default=None,
        kw_only=True,
        validator=[optional(integer(minimum=1)), _check_fits],
    )

    def init(self) -> ScheduleState:
        """Return {"horizon": T, "warmup": W, "decay": D}, None for what the run decides."""
        if self.steps is None:
            return {"horizon": None, "warmup": self.warmup_steps, "decay": self.decay_steps}
        return self._state(self.steps, self.warmup_steps, self.decay_steps)

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the lr on the way up, on the plain, on the way down, or at the end."""
        horizon = known_total_steps(self, state)
        warmup: int = state["warmup"]
        decay: int = state["decay"]
        if step < warmup:
            return self.base * step / warmup
        if step >= horizon:
            return self.end
        if step < horizon - decay:
            return self.base
        return self.end + (self.base - self.end) * self._left((step - horizon + decay) / decay)

    def with_horizon(self, state: ScheduleState, steps: int) -> ScheduleState:
        """Return the state with `steps` as its horizon, if it had none."""
        if state["horizon"] is not None:
            return state
        return self._state(steps, state["warmup"], state["decay"])

    def _state(self, horizon: int, warmup: int | None, decay: int | None) -> ScheduleState:
        check_total_steps(self, horizon)
        warmup = _length(warmup, self.warmup_proportion, horizon)
        decay = _length(decay, self.decay_proportion, horizon)
        if warmup + decay > horizon:
            raise ConfigurationError(
                f"WarmupStableDecay: a warmup of {warmup} and a decay of {decay} steps do not fit "
                f"into a horizon of {horizon} steps: lengthen the run (or steps=), or shorten one"
            )
        return {"horizon": horizon, "warmup": warmup, "decay": decay}

    def _left(self, progress: float) -> float:
        if self.shape == "linear":
            return 1 - progress
        if self.shape == "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        return 1 - math.sqrt(progress)
