"""A climb from a part of the learning rate, before any other schedule begins."""

from __future__ import annotations

import attrs

from functrain.core.given_schedules import as_schedule
from functrain.core.schedule import Observed, Schedule, ScheduleState
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import integer, number
from functrain.schedules.composite import observed, own_end
from functrain.schedules.fields import plain_float


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
