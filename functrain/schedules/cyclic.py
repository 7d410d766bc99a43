"""Learning rates that rise again: triangles, one cycle, and cosine waves with restarts."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import attrs

from functrain.core.schedule import Schedule, ScheduleState
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import integer, number, one_of, optional
from functrain.schedules.fields import multiplied, plain_float
from functrain.schedules.total_steps import WithTotalSteps, known_total_steps

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


_Shape: TypeAlias = Literal["cosine", "linear"]


def _check_phases(instance: OneCycle, attribute: attrs.Attribute[Any], three: bool) -> None:
    if three and instance.warmup_proportion > 0.5:
        raise ConfigurationError(
            "OneCycle: with three_phase=True the way down is as long as the way up, so "
            f"warmup_proportion: expected a number up to 0.5, got {instance.warmup_proportion!r}"
        )


@explained
@attrs.frozen(repr=False)
class OneCycle(WithTotalSteps):
    """Rise from lr / div_factor to `lr`, then fall to lr / div_factor / final_div_factor.

    The 1cycle policy of Smith & Topin (2018). It equals `torch.optim.lr_scheduler.OneCycleLR`
    with max_lr = lr, total_steps = steps, pct_start = warmup_proportion and
    anneal_strategy = shape. With p = warmup_proportion and T = steps, the top is at update
    p * T - 1 and the end at T - 1, after which the learning rate is constant. With three phases
    the fall to lr / div_factor takes as long as the rise, and the third phase falls to the end.
    Each phase is half a cosine wave or a straight line. `optax.cosine_onecycle_schedule` is the
    same policy with the top at int(p * T) and the end at T. The momentum does not change.

    Args:
        lr: the learning rate at the top.
        warmup_proportion: the share of the steps in the rise; at most 0.5 with three phases.
        shape: "cosine" or "linear".
        div_factor: the first learning rate is `lr` divided by this, above 0.
        final_div_factor: the last learning rate is the first divided by this, above 0.
        three_phase: whether to return to the first learning rate before the last fall.
        steps: T; None is the length of the run.

    Example:
        >>> schedule = OneCycle(1.0, warmup_proportion=0.5, shape="linear", div_factor=4, steps=5)
        >>> [round(schedule(step), 4) for step in range(6)]
        [0.25, 0.75, 0.8, 0.4, 0.0, 0.0]
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    warmup_proportion: float = attrs.field(
        default=0.3, kw_only=True, converter=plain_float, validator=number(minimum=0, maximum=1)
    )
    shape: _Shape = attrs.field(default="cosine", kw_only=True, validator=one_of(_Shape))
    div_factor: float = attrs.field(
        default=25.0, kw_only=True, converter=plain_float, validator=number(above=0)
    )
    final_div_factor: float = attrs.field(
        default=1e4, kw_only=True, converter=plain_float, validator=number(above=0)
    )
    three_phase: bool = attrs.field(default=False, kw_only=True, validator=_check_phases)
    steps: int | None = attrs.field(
        default=None, kw_only=True, validator=optional(integer(minimum=1))
    )

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the point of the phase that `step` is in."""
        horizon = known_total_steps(self, state)
        step, begin = min(step, horizon - 1), 0.0
        phases = self._phases(horizon)
        while step > phases[0][0]:
            begin = phases.pop(0)[0]
        end, low, high = phases[0]
        part = (step - begin) / (end - begin) if end > begin else 1.0
        if self.shape == "linear":
            return (high - low) * part + low
        return high + (low - high) / 2 * (math.cos(math.pi * part) + 1)

    def _phases(self, horizon: int) -> list[tuple[float, float, float]]:
        """Last step of each phase, the lr it begins with and the lr it ends with."""
        first = self.base / self.div_factor
        last = first / self.final_div_factor
        up = self.warmup_proportion * horizon
        if not self.three_phase:
            return [(up - 1, first, self.base), (horizon - 1, self.base, last)]
        return [
            (up - 1, first, self.base),
            (2 * up - 2, self.base, first),
            (horizon - 1, first, last),
        ]
