"""A warmup that is steep at first and approaches its end exponentially."""

from __future__ import annotations

import math

import attrs

from functrain.core.given_schedules import as_schedule
from functrain.core.schedule import Schedule
from functrain.errors.calls import explained
from functrain.errors.validators import number
from functrain.schedules.composite import Times
from functrain.schedules.fields import plain_float


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
