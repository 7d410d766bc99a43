"""Another schedule's learning rate, times a number."""

from __future__ import annotations

import attrs

from functrain.core.given_schedules import as_schedule
from functrain.core.schedule import Schedule
from functrain.errors.calls import explained
from functrain.errors.validators import number
from functrain.schedules.composite import Times
from functrain.schedules.fields import plain_float


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
