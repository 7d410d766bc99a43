"""A warmup that is steep at first and approaches its end exponentially."""

from __future__ import annotations

import math

import attrs

from functrain.core.given_schedules import as_schedule
from functrain.core.schedule import Observed, Schedule, ScheduleState
from functrain.errors.calls import explained
from functrain.errors.validators import number
from functrain.schedules.composite import observed, own_end
from functrain.schedules.fields import plain_float


@explained
@attrs.frozen(repr=False)
class ExponentialWarmup(Schedule):
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

    def __call__(self, step: int) -> float:
        """Return the lr of update number `step`."""
        return self.then(step) * self._part(step)

    @property
    def observes(self) -> Observed:
        """Return the kind of value that `then` observes."""
        return observed(self, self.then)

    def init(self) -> ScheduleState:
        """Return the state of `then`."""
        return self.then.init()

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the dampened lr of `then`."""
        return self.then.lr(state, step) * self._part(step)

    def advance(self, state: ScheduleState) -> ScheduleState:
        """Advance `then`."""
        return self.then.advance(state)

    def observe(self, state: ScheduleState, metric: float | None) -> ScheduleState:
        """Show the metric to `then`."""
        return self.then.observe(state, metric)

    def with_horizon(self, state: ScheduleState, steps: int) -> ScheduleState:
        """Give `then` the length of the run."""
        return self.then.with_horizon(state, steps)

    def horizon(self) -> int | None:
        """Return the update at which `then` ends by itself."""
        return own_end(self.then)

    def _part(self, step: int) -> float:
        return -math.expm1(-(step + 1) / self.period)
