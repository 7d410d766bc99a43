"""Another schedule's learning rate, times a number."""

from __future__ import annotations

import attrs

from functrain.core.given_schedules import as_schedule
from functrain.core.schedule import Observed, Schedule, ScheduleState
from functrain.errors.calls import explained
from functrain.errors.validators import number
from functrain.schedules.composite import observed, own_end
from functrain.schedules.fields import plain_float


@explained
@attrs.frozen(repr=False)
class Scaled(Schedule):
    """Multiply the learning rate of a schedule by a constant, as for one group of parameters.

    Its state is that of the schedule, so the factor may be changed when a run is resumed.

    Args:
        schedule: any schedule; or a number, or a function of the step.
        factor: what to multiply with, at least 0.

    Example:
        >>> schedule = Scaled(lambda step: 1 / (1 + step), factor=0.5)
        >>> [schedule(step) for step in (0, 1, 3)]
        [0.5, 0.25, 0.125]
    """

    schedule: Schedule = attrs.field(converter=as_schedule)
    factor: float = attrs.field(converter=plain_float, validator=number(minimum=0))

    def __call__(self, step: int) -> float:
        """Return the lr of update number `step`."""
        return self.factor * self.schedule(step)

    @property
    def observes(self) -> Observed:
        """Return the kind of value that the schedule observes."""
        return observed(self, self.schedule)

    def init(self) -> ScheduleState:
        """Return the state of the schedule."""
        return self.schedule.init()

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the schedule's lr times the factor."""
        return self.factor * self.schedule.lr(state, step)

    def advance(self, state: ScheduleState) -> ScheduleState:
        """Advance the schedule."""
        return self.schedule.advance(state)

    def observe(self, state: ScheduleState, metric: float | None) -> ScheduleState:
        """Show the metric to the schedule."""
        return self.schedule.observe(state, metric)

    def with_horizon(self, state: ScheduleState, steps: int) -> ScheduleState:
        """Give the schedule the length of the run."""
        return self.schedule.with_horizon(state, steps)

    def horizon(self) -> int | None:
        """Return the update at which the schedule ends by itself."""
        return own_end(self.schedule)
