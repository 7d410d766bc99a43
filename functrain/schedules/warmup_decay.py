"""A climb to the learning rate, and a decay from there."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import attrs

from functrain.core.schedule import ScheduleState
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import integer, number, one_of, optional
from functrain.schedules.decay import Decay
from functrain.schedules.fields import exactly_one, plain_float
from functrain.schedules.total_steps import check_total_steps, known_total_steps


@attrs.frozen(repr=False)
class WarmupDecay(Decay):
    """Linear warmup from 0 to `lr`, then a curve to `end`; a subclass has the curve."""

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
    # Again, by name only.
    end: float = attrs.field(
        default=0.0, kw_only=True, converter=plain_float, validator=number(minimum=0)
    )
    steps: int | None = attrs.field(
        default=None, kw_only=True, validator=optional(integer(minimum=1))
    )

    def __attrs_post_init__(self) -> None:
        self.init()  # which checks that the warmup fits

    def _open(self) -> ScheduleState:
        """Return {"horizon": T, "warmup": W}, None for what the run's length decides."""
        return {"horizon": None, "warmup": self.warmup_steps}

    def _filled(self, state: ScheduleState, total_steps: int) -> ScheduleState:
        warmup = length_of(state["warmup"], self.warmup_proportion, total_steps)
        return {"horizon": check_total_steps(self, total_steps, warmup), "warmup": warmup}


def length_of(steps: int | None, proportion: float | None, total_steps: int) -> int:
    """Return the given steps, or the proportion of the total steps to the nearest step."""
    if steps is not None:
        return steps
    assert proportion is not None
    return round(proportion * total_steps)


@explained
@attrs.frozen(repr=False)
class WarmupLinear(WarmupDecay):
    """Linear warmup from 0 to `lr`, then the straight line to `end`.

    Formula, with W the warmup and T the horizon: lr * step / W before W, then
    lr + (end - lr) * (step - W) / (T - W), then `end`; with end = 0 it is the
    `get_linear_schedule_with_warmup` of transformers.

    Args:
        lr: the learning rate at the top, that of update number W.
        warmup_steps: W, the length of the climb; or
        warmup_proportion: W as a part of the horizon, rounded to the nearest step.
        steps: T; None is the length of the run.
        end: the learning rate from update number T on.

    Example:
        >>> schedule = WarmupLinear(1.0, warmup_steps=2, steps=6)
        >>> [schedule(step) for step in range(8)]
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    def curve(self, step: int, steps: int) -> float:
        """Return the point of the line at `step`."""
        return self.base + (self.end - self.base) * step / steps


@explained
@attrs.frozen(repr=False)
class WarmupCosine(WarmupDecay):
    """Linear warmup from 0 to `lr`, then half a cosine wave to `end`.

    Formula, with W the warmup and T the horizon: lr * step / W before W, then
    end + (lr - end) * (1 + cos(pi * (step - W) / (T - W))) / 2, then `end`; with end = 0 it
    is the `get_cosine_schedule_with_warmup` of transformers.

    Args:
        lr: the learning rate at the top, that of update number W.
        warmup_steps: W, the length of the climb; or
        warmup_proportion: W as a part of the horizon, rounded to the nearest step.
        steps: T; None is the length of the run.
        end: the learning rate from update number T on.

    Example:
        >>> schedule = WarmupCosine(1.0, warmup_proportion=0.5, steps=4)
        >>> [round(schedule(step), 3) for step in range(6)]
        [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """

    def curve(self, step: int, steps: int) -> float:
        """Return the point of the wave at `step`."""
        return self.end + (self.base - self.end) * (1 + math.cos(math.pi * (step / steps))) / 2


_Shape: TypeAlias = Literal["linear", "cosine", "sqrt"]


@explained
@attrs.frozen(repr=False)
class WarmupStableDecay(WarmupDecay):
    """Linear warmup from 0 to `lr`, `lr` for most of the run, then a decay to `end`.

    The schedule of MiniCPM (Hu et al., 2024), also called trapezoidal. Formula, with W the
    warmup, D the decay and T the horizon: lr * step / W before W, then lr until T - D, then
    end + (lr - end) * f(p) with p = (step - (T - D)) / D, then `end`. f is 1 - p for "linear",
    (1 + cos(pi * p)) / 2 for "cosine", and 1 - sqrt(p) for "sqrt", which Hägele et al. (2024)
    found best. It is `get_wsd_schedule` of transformers, whose decay types are linear, cosine
    and 1-sqrt, and whose stable steps are T - D - W.

    Args:
        lr: the learning rate of the plain.
        warmup_steps: W, the length of the climb; or
        warmup_proportion: W as a part of the horizon, rounded to the nearest step.
        decay_steps: D, the length of the fall; or
        decay_proportion: D as a part of the horizon, rounded to the nearest step.
        shape: "linear", "cosine" or "sqrt".
        end: the learning rate from update number T on.
        steps: T; None is the length of the run.

    Example:
        >>> schedule = WarmupStableDecay(1.0, warmup_steps=2, decay_proportion=0.5, steps=8)
        >>> [schedule(step) for step in range(9)]
        [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

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

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the lr on the climb, on the plain, on the way down or at the end."""
        down = step - known_total_steps(self, state) + state["decay"]
        if step < state["warmup"] or down >= state["decay"]:
            return super().lr(state, step)
        return self.base if down < 0 else self.curve(down, state["decay"])

    def curve(self, step: int, steps: int) -> float:
        """Return the lr on the way down."""
        return self.end + (self.base - self.end) * self._left(step / steps)

    def _open(self) -> ScheduleState:
        """Return {"horizon": T, "warmup": W, "decay": D}, None for what the run decides."""
        return {"horizon": None, "warmup": self.warmup_steps, "decay": self.decay_steps}

    def _filled(self, state: ScheduleState, total_steps: int) -> ScheduleState:
        check_total_steps(self, total_steps)
        warmup = length_of(state["warmup"], self.warmup_proportion, total_steps)
        decay = length_of(state["decay"], self.decay_proportion, total_steps)
        if warmup + decay > total_steps:
            raise ConfigurationError(
                f"WarmupStableDecay: a warmup of {warmup} and a decay of {decay} steps do not fit "
                f"into a horizon of {total_steps} steps: lengthen the run (or steps=), or shorten "
                "one"
            )
        return {"horizon": total_steps, "warmup": warmup, "decay": decay}

    def _left(self, progress: float) -> float:
        if self.shape == "linear":
            return 1 - progress
        if self.shape == "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        return 1 - math.sqrt(progress)
