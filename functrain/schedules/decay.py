"""Decays from one learning rate to another: a straight line, a cosine wave, a power."""

from __future__ import annotations

import math

import attrs

from functrain.core.schedule import ScheduleState
from functrain.errors.calls import explained
from functrain.errors.validators import integer, number, optional
from functrain.schedules.fields import plain_float
from functrain.schedules.total_steps import WithTotalSteps, known_total_steps


@attrs.frozen(repr=False)
class Decay(WithTotalSteps):
    """A curve from `lr` to `end`, and `end` after it; a subclass has the curve."""

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    end: float = attrs.field(default=0.0, converter=plain_float, validator=number(minimum=0))
    steps: int | None = attrs.field(default=None, validator=optional(integer(minimum=1)))

    def curve(self, step: int, steps: int) -> float:
        """Return the point at `step`, which is below `steps`."""
        raise NotImplementedError

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the point of the curve at `step`, or its end."""
        horizon = known_total_steps(self, state)
        return self.end if step >= horizon else self.curve(step, horizon)


@explained
@attrs.frozen(repr=False)
class Linear(Decay):
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

    def curve(self, step: int, steps: int) -> float:
        """Return the point of the line at `step`."""
        return self.base + (self.end - self.base) * (step / steps)


@explained
@attrs.frozen(repr=False)
class Cosine(Decay):
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

    def curve(self, step: int, steps: int) -> float:
        """Return the point of the wave at `step`."""
        return self.end + (self.base - self.end) * (1 + math.cos(math.pi * step / steps)) / 2


@explained
@attrs.frozen(repr=False)
class Polynomial(Decay):
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

    power: float = attrs.field(default=1.0, converter=plain_float, validator=number(above=0))
    # Again, for they come after the power.
    end: float = attrs.field(default=0.0, converter=plain_float, validator=number(minimum=0))
    steps: int | None = attrs.field(default=None, validator=optional(integer(minimum=1)))

    def curve(self, step: int, steps: int) -> float:
        """Return the point of the curve at `step`."""
        return self.end + (self.base - self.end) * math.pow(1 - step / steps, self.power)
