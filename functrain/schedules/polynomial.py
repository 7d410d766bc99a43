"""A power of the straight line from one learning rate to another."""

from __future__ import annotations

import math

import attrs

from functrain.core.schedule import Schedule, ScheduleState
from functrain.errors.validators import integer, number, optional
from functrain.schedules.fields import plain_float
from functrain.schedules.total_steps import known_total_steps, with_total_steps


@attrs.frozen(repr=False)
class Polynomial(Schedule):
    """A polynomial decay from `lr` to `end`, and `end` after it.

    Formula: end + (lr - end) * (1 - step / steps)**power, the closed form of
    `torch.optim.lr_scheduler.PolynomialLR` (total_iters = steps, end = 0) and
    `optax.polynomial_schedule` (transition_steps = steps).

    Args:
        lr: the learning rate of the first update.
        power: above 0; 1 is the straight line, 2 falls fast at first.
        end: the learning rate from update number `steps` on.
        steps: where the decay ends; None is the length of the run.

    Example:
        >>> schedule = Polynomial(1.0, power=2, steps=4)
        >>> [schedule(step) for step in range(6)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    power: float = attrs.field(default=1.0, converter=plain_float, validator=number(above=0))
    end: float = attrs.field(default=0.0, converter=plain_float, validator=number(minimum=0))
    steps: int | None = attrs.field(default=None, validator=optional(integer(minimum=1)))

    def init(self) -> ScheduleState:
        """Return {"horizon": steps}."""
        return {"horizon": self.steps}

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the point of the curve at `step`, or its end."""
        horizon = known_total_steps(self, state)
        if step >= horizon:
            return self.end
        return self.end + (self.base - self.end) * math.pow(1 - step / horizon, self.power)

    def with_horizon(self, state: ScheduleState, steps: int) -> ScheduleState:
        """Return the state with `steps` as its horizon, if it had none."""
        return with_total_steps(self, state, steps)
