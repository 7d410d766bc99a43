"""Warmups before another schedule: a straight line, or an exponential approach."""

from __future__ import annotations

import math

import attrs

from functrain.core.schedule import Observed, Schedule, ScheduleState, as_schedule
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import integer, number
from functrain.schedules.composite import observed, own_end
from functrain.schedules.fields import plain_float
from functrain.schedules.scaled import Times


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


@explained
@attrs.frozen(repr=False)
class ExponentialWarmup(Times):
    """Follow `then` from its step 0 on, with a factor that approaches 1 exponentially.

    Formula: the lr of `then` at k times 1 - exp(-(k + 1) / period) for update number k, the
    exponential warmup of Ma & Yarats (2021), equal to `pytorch_warmup.ExponentialWarmup`. Their
    untuned form for Adam is period = 1 / (1 - beta2). Unlike Warmup it does not delay `then`,
    because the warmup never ends; after 3 periods the factor is 0.95.

    Args:
        period: the time constant in steps, above 0.
        then: the schedule to dampen; or a number, or a function of the step.

    Example:
        >>> schedule = ExponentialWarmup(2, then=1.0)
        >>> [round(schedule(step), 3) for step in (0, 1, 2, 10)]
        [0.393, 0.632, 0.777, 0.996]
    """

    period: float = attrs.field(converter=plain_float, validator=number(above=0))
    then: Schedule = attrs.field(converter=as_schedule)

    def inner(self) -> Schedule:
        """Return `then`."""
        return self.then

    def part(self, step: int) -> float:
        """Return how far the warmup has come."""
        return -math.expm1(-(step + 1) / self.period)
