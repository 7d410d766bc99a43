"""Another schedule's learning rate, times a number."""

from __future__ import annotations

import attrs

from functrain.core.schedule import Observed, Schedule, ScheduleState, as_schedule
from functrain.errors.calls import explained
from functrain.errors.validators import number
from functrain.schedules.composite import observed, own_end
from functrain.schedules.fields import plain_float


class Times(Schedule):
    """A schedule that multiplies the rate of another one, whose state is its own."""

    __slots__ = ()

    def inner(self) -> Schedule:
        """Return the other schedule."""
        raise NotImplementedError

    def part(self, step: int) -> float:
        """Return the number to multiply with."""
        raise NotImplementedError

    def __call__(self, step: int) -> float:
        """Return the lr of update number `step`."""
        return self.part(step) * self.inner()(step)

    @property
    def observes(self) -> Observed:
        """Return the kind of value that the other schedule observes."""
        return observed(self, self.inner())

    def init(self) -> ScheduleState:
        """Return the state of the other schedule."""
        return self.inner().init()

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the product."""
        return self.part(step) * self.inner().lr(state, step)

    def advance(self, state: ScheduleState) -> ScheduleState:
        """Advance the other schedule."""
        return self.inner().advance(state)

    def observe(self, state: ScheduleState, metric: float | None) -> ScheduleState:
        """Show the metric to the other schedule."""
        return self.inner().observe(state, metric)

    def with_horizon(self, state: ScheduleState, steps: int) -> ScheduleState:
        """Give the other schedule the length of the run."""
        return self.inner().with_horizon(state, steps)

    def horizon(self) -> int | None:
        """Return the update at which the other schedule ends by itself."""
        return own_end(self.inner())


@explained
@attrs.frozen(repr=False)
class Scaled(Times):
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

    def inner(self) -> Schedule:
        """Return the schedule."""
        return self.schedule

    def part(self, step: int) -> float:
        """Return the factor."""
        return self.factor
