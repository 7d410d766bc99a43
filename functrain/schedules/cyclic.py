"""Learning rates that rise again: triangles, and cosine waves with restarts."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import attrs

from functrain.core.schedule import Schedule, ScheduleState
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import integer, number, one_of, optional
from functrain.schedules.fields import plain_float
from functrain.schedules.multiplied import multiplied

_Mode: TypeAlias = Literal["triangular", "triangular2", "exp_range"]


def _check_top(instance: Cyclic, attribute: attrs.Attribute[Any], top: float) -> None:
    if top < instance.base:
        raise ConfigurationError(
            f"Cyclic: top: expected a number of at least lr={instance.base!r}, got {top!r}"
        )


@explained
@attrs.frozen(repr=False)
class Cyclic(Schedule):
    """Go up from `lr` to `top` and down again in straight lines, over and over.

    Smith (2017). It equals `torch.optim.lr_scheduler.CyclicLR` with base_lr = lr, max_lr = top,
    step_size_up = up, step_size_down = down and gamma = factor. Formula:
    lr + (top - lr) * height * scale, with height going from 0 to 1 in `up` steps and back in
    `down`. The scale is 1 for "triangular", halves at each cycle for "triangular2", and is
    factor**step for "exp_range". The momentum does not change.

    Args:
        lr: the learning rate of the first update, the lowest.
        top: the highest learning rate.
        up: steps of a rise.
        down: steps of a fall; by default `up`.
        mode: "triangular", "triangular2" or "exp_range".
        factor: at least 0, for "exp_range"; above 1 the triangles grow beyond `top`.

    Example:
        >>> schedule = Cyclic(0.0, top=1.0, up=2, mode="triangular2")
        >>> [schedule(step) for step in range(8)]
        [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5, 0.25]
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    top: float = attrs.field(
        converter=plain_float, validator=attrs.validators.and_(number(minimum=0), _check_top)
    )
    up: int = attrs.field(default=2000, validator=integer(minimum=1))
    down: int | None = attrs.field(default=None, validator=optional(integer(minimum=1)))
    mode: _Mode = attrs.field(default="triangular", validator=one_of(_Mode))
    factor: float = attrs.field(default=1.0, converter=plain_float, validator=number(minimum=0))

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the point of the triangle that `step` is in."""
        down = self.up if self.down is None else self.down
        cycle, position = divmod(step, self.up + down)
        height = min(position / self.up, (self.up + down - position) / down)
        factor, times = self._scale(cycle, step)
        return self.base + multiplied((self.top - self.base) * height, factor, times)

    def _scale(self, cycle: int, step: int) -> tuple[float, int]:
        if self.mode == "triangular":
            return 1.0, 0
        return (0.5, cycle) if self.mode == "triangular2" else (self.factor, step)


@explained
@attrs.frozen(repr=False)
class CosineRestarts(Schedule):
    """Half cosine waves from `lr` to `end`, each followed by a jump back to `lr`.

    SGDR (Loshchilov & Hutter, 2017). Formula, at step t of a wave of T steps:
    end + (lr - end) * (1 + cos(pi * t / T)) / 2, the closed form of
    `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts` with T_0 = period, T_mult = growth
    and eta_min = end; `optax.sgdr_schedule` joins the same waves one by one.

    Args:
        lr: the learning rate at the beginning of each wave.
        period: steps of the first wave.
        growth: each wave is this many times as long as the one before, an integer.
        end: the learning rate that each wave falls to.

    Example:
        >>> schedule = CosineRestarts(1.0, period=2, growth=2)
        >>> [round(schedule(step), 3) for step in range(7)]
        [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    period: int = attrs.field(validator=integer(minimum=1))
    growth: int = attrs.field(default=1, validator=integer(minimum=1))
    end: float = attrs.field(default=0.0, converter=plain_float, validator=number(minimum=0))

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the point of the wave that `step` is in."""
        length = self.period
        position = step % length if self.growth == 1 else step
        while position >= length:  # as often as there were waves: a logarithm of the step
            position, length = position - length, length * self.growth
        return self.end + (self.base - self.end) * (1 + math.cos(math.pi * position / length)) / 2
