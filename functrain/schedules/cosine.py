"""Half a cosine wave from one learning rate down to another."""

from __future__ import annotations

import math

import attrs

from functrain.core.schedule import Schedule, ScheduleState
from functrain.errors.validators import integer, number, optional
from functrain.schedules.fields import plain_float
from functrain.schedules.total_steps import known_total_steps, with_total_steps


@attrs.frozen(repr=False)
class Cosine(Schedule):
    """Half a cosine wave from `lr` to `end`, and `end` after it.

    Formula: end + (lr - end) * (1 + cos(pi * step / steps)) / 2, the closed form of
    `torch.optim.lr_scheduler.CosineAnnealingLR` with T_max = steps and eta_min = end
    (Loshchilov & Hutter, SGDR, 2017). Unlike torch's, it does not rise again after `steps`.

    Args:
        lr: the learning rate of the first update.
        end: the learning rate from update number `steps` on.
        steps: where the wave ends; None is the length of the run.

    Example:
        >>> schedule = Cosine(1.0, steps=4)
        >>> [round(schedule(step), 3) for step in range(6)]
        [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    end: float = attrs.field(default=0.0, converter=plain_float, validator=number(minimum=0))
    steps: int | None = attrs.field(default=None, validator=optional(integer(minimum=1)))

    def init(self) -> ScheduleState:
        """Return {"horizon": steps}."""
        return {"horizon": self.steps}

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the point of the wave at `step`, or its end."""
        horizon = known_total_steps(self, state)
        if step >= horizon:
            return self.end
        return self.end + (self.base - self.end) * (1 + math.cos(math.pi * step / horizon)) / 2

    def with_horizon(self, state: ScheduleState, steps: int) -> ScheduleState:
        """Return the state with `steps` as its horizon, if it had none."""
        return with_total_steps(self, state, steps)
