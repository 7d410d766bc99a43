"""A straight line from one learning rate to another."""

from __future__ import annotations

import attrs

from functrain.core.schedule import Schedule, ScheduleState
from functrain.errors.validators import integer, number, optional
from functrain.schedules.fields import plain_float
from functrain.schedules.total_steps import known_total_steps, with_total_steps


@attrs.frozen(repr=False)
class Linear(Schedule):
    """The straight line from `lr` to `end`, and `end` after it.

    Formula: lr + (end - lr) * step / steps, as in `torch.optim.lr_scheduler.LinearLR` with
    start_factor 1 and end_factor end / lr.

    Args:
        lr: the learning rate of the first update.
        end: the learning rate from update number `steps` on.
        steps: where the line ends; None is the length of the run.

    Example:
        >>> schedule = Linear(1.0, steps=4)
        >>> [schedule(step) for step in range(6)]
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    end: float = attrs.field(default=0.0, converter=plain_float, validator=number(minimum=0))
    steps: int | None = attrs.field(default=None, validator=optional(integer(minimum=1)))

    def init(self) -> ScheduleState:
        """Return {"horizon": steps}."""
        return {"horizon": self.steps}

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the point of the line at `step`, or its end."""
        horizon = known_total_steps(self, state)
        if step >= horizon:
            return self.end
        return self.base + (self.end - self.base) * (step / horizon)

    def with_horizon(self, state: ScheduleState, steps: int) -> ScheduleState:
        """Return the state with `steps` as its horizon, if it had none."""
        return with_total_steps(self, state, steps)
