"""A climb to the learning rate: with a decay of its own, or before another schedule."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import attrs

from functrain.core.schedule import Observed, Schedule, ScheduleState, as_schedule
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import integer, number, one_of, optional
from functrain.schedules.composite import observed, own_end
from functrain.schedules.fields import exactly_one, plain_float
from functrain.schedules.total_steps import (
    WithTotalSteps,
    check_total_steps,
    known_total_steps,
)


@attrs.frozen(repr=False)
class WarmupDecay(WithTotalSteps):
    """Linear warmup from 0 to `lr`, then a curve to `end`; a subclass has the curve."""

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
        default=None, kw_only=True, validator=optional(integer(minimum=1))
    )

    def __attrs_post_init__(self) -> None:
        self.init()  # which checks that the warmup fits

    def curve(self, state: ScheduleState, step: int) -> float:
        """Return the point at `step`, which is after the warmup and below the horizon."""
        raise NotImplementedError

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the lr on the way up, after it, or at the end."""
        horizon = known_total_steps(self, state)
        warmup: int = state["warmup"]
        if step < warmup:
            return self.base * step / warmup
        return self.end if step >= horizon else self.curve(state, step)

    def _open(self) -> ScheduleState:
        """Return {"horizon": T, "warmup": W}, None for what the run's length decides."""
        return {"horizon": None, "warmup": self.warmup_steps}

    def _filled(self, state: ScheduleState, horizon: int) -> ScheduleState:
        warmup = length_of(state["warmup"], self.warmup_proportion, horizon)
        return {"horizon": check_total_steps(self, horizon, warmup), "warmup": warmup}


def length_of(steps: int | None, proportion: float | None, horizon: int) -> int:
    """Return the given steps, or the proportion of the horizon to the nearest step."""
    if steps is not None:
        return steps
    assert proportion is not None
    return round(proportion * horizon)


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

    def curve(self, state: ScheduleState, step: int) -> float:
        """Return the point of the line at `step`."""
        warmup, horizon = state["warmup"], state["horizon"]
        line: float = self.base + (self.end - self.base) * (step - warmup) / (horizon - warmup)
        return line


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

    def curve(self, state: ScheduleState, step: int) -> float:
        """Return the point of the wave at `step`."""
        warmup, horizon = state["warmup"], state["horizon"]
        progress = (step - warmup) / (horizon - warmup)
        return self.end + (self.base - self.end) * (1 + math.cos(math.pi * progress)) / 2


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

    def curve(self, state: ScheduleState, step: int) -> float:
        """Return the lr on the plain, or on the way down."""
        decay: int = state["decay"]
        down = step - state["horizon"] + decay
        if down < 0:
            return self.base
        return self.end + (self.base - self.end) * self._left(down / decay)

    def _open(self) -> ScheduleState:
        """Return {"horizon": T, "warmup": W, "decay": D}, None for what the run decides."""
        return {"horizon": None, "warmup": self.warmup_steps, "decay": self.decay_steps}

    def _filled(self, state: ScheduleState, horizon: int) -> ScheduleState:
        check_total_steps(self, horizon)
        warmup = length_of(state["warmup"], self.warmup_proportion, horizon)
        decay = length_of(state["decay"], self.decay_proportion, horizon)
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


@explained
@attrs.frozen(repr=False)
class Warmup(Schedule):
    """Climb in a straight line from `factor` times the learning rate, then follow `then`.

    Formula, with W = steps and base the lr of `then` at its own step 0: the lr of update
    number k is base * (factor + (1 - factor) * k / W) for k < W, and after that the lr of
    `then` at k - W. So update W has the full lr, and `then` first moves at update W + 1;
    until then it is not advanced and sees no metric.

    A `then` without a horizon gets what the warmup leaves of the run.

    Args:
        factor: where to begin, as a part of the full learning rate, from 0 to 1.
        steps: W, the length of the climb.
        then: the schedule that follows; or a number, or a function of the step.

    Example:
        >>> schedule = Warmup(0.1, steps=4, then=1.0)
        >>> [round(schedule(step), 3) for step in range(6)]
        [0.1, 0.325, 0.55, 0.775, 1.0, 1.0]
    """

    factor: float = attrs.field(converter=plain_float, validator=number(minimum=0, maximum=1))
    steps: int = attrs.field(validator=integer(minimum=0))
    then: Schedule = attrs.field(converter=as_schedule)

    def __call__(self, step: int) -> float:
        """Return the lr of update number `step`."""
        if step >= self.steps:
            return self.then(step - self.steps)
        return self.then(0) * self._part(step)

    @property
    def observes(self) -> Observed:
        """Return the kind of value that `then` observes."""
        return observed(self, self.then)

    def init(self) -> ScheduleState:
        """Return {"step": updates done, "then": the state of `then`}."""
        return {"step": 0, "then": self.then.init()}

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the lr on the climb, or that of `then`."""
        if step >= self.steps:
            return self.then.lr(state["then"], step - self.steps)
        return self.then.lr(state["then"], 0) * self._part(step)

    def advance(self, state: ScheduleState) -> ScheduleState:
        """Count the update, and advance `then` once the climb is over."""
        over = state["step"] >= self.steps
        then = self.then.advance(state["then"]) if over else state["then"]
        return {"step": state["step"] + 1, "then": then}

    def observe(self, state: ScheduleState, metric: float | None) -> ScheduleState:
        """Show the metric to `then` once the climb is over."""
        if state["step"] < self.steps:
            return state
        return {**state, "then": self.then.observe(state["then"], metric)}

    def with_horizon(self, state: ScheduleState, steps: int) -> ScheduleState:
        """Give `then` what the climb leaves of the run.

        Raises:
            ConfigurationError: that is too little for it.
        """
        try:
            then = self.then.with_horizon(state["then"], steps - self.steps)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"Warmup: {self.steps} of the run's {steps} steps are the climb. {error}"
            ) from error
        return {**state, "then": then}

    def horizon(self) -> int | None:
        """Return the update at which `then` ends by itself, the climb included."""
        return own_end(self.then, before=self.steps)

    def _part(self, step: int) -> float:
        return self.factor + (1 - self.factor) * step / self.steps
