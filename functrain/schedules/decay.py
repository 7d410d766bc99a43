"""Decays: a straight line, a cosine wave, a power, an exponential, an inverse square root."""

from __future__ import annotations

import math
from typing import Any

import attrs

from functrain.core.schedule import Schedule, ScheduleState
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import integer, number, optional
from functrain.schedules.fields import multiplied, plain_float
from functrain.schedules.total_steps import WithTotalSteps, known_total_steps


@attrs.frozen(repr=False)
class Decay(WithTotalSteps):
    """A curve from `lr` to `end`, and `end` after it; a subclass has the curve.

    Where the state has a warmup, the rate rises in a straight line from 0 before the curve begins.
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    end: float = attrs.field(default=0.0, converter=plain_float, validator=number(minimum=0))
    steps: int | None = attrs.field(default=None, validator=optional(integer(minimum=1)))

    def curve(self, step: int, steps: int) -> float:
        """Return the point at `step` of a curve of so many steps; `step` is below `steps`."""
        raise NotImplementedError

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the point of the warmup or the curve at `step`, or the end."""
        total_steps = known_total_steps(self, state)
        warmup: int = state.get("warmup", 0)
        if step < warmup:
            return self.base * step / warmup
        return self.end if step >= total_steps else self.curve(step - warmup, total_steps - warmup)


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


def _check_end(instance: Exponential, attribute: attrs.Attribute[Any], end: float | None) -> None:
    base, factor = instance.base, instance.factor
    if end is not None and (end < base if factor > 1 else end > base):
        side = "at least" if factor > 1 else "at most"
        raise ConfigurationError(
            f"Exponential: with factor={factor!r}, end: expected {side} lr={base!r}, got {end!r}"
        )


@explained
@attrs.frozen(repr=False)
class Exponential(Schedule):
    """Multiply the learning rate by `factor` at every step.

    Formula: lr * factor**step, but not beyond `end`; the closed form of
    `torch.optim.lr_scheduler.ExponentialLR` with gamma = factor, and
    `optax.exponential_decay` with transition_steps = 1 and decay_rate = factor. To fall to the
    fraction p in n steps, give factor = p**(1 / n). A factor above 1 makes the learning rate range
    test of Smith (2017).

    Args:
        lr: the learning rate of the first update.
        factor: multiplies the learning rate after each update, at least 0.
        end: a bound that stops it; without one, a factor above 1 makes it grow forever.

    Example:
        >>> schedule = Exponential(1.0, factor=0.5, end=0.2)
        >>> [schedule(step) for step in range(5)]
        [1.0, 0.5, 0.25, 0.2, 0.2]
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    factor: float = attrs.field(converter=plain_float, validator=number(minimum=0))
    end: float | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(plain_float),
        validator=[optional(number(minimum=0)), _check_end],
    )

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the lr after `step` multiplications."""
        lr = multiplied(self.base, self.factor, step)
        if self.end is None:
            return lr
        return max(lr, self.end) if self.factor <= 1 else min(lr, self.end)


_TIMESCALE = 10_000  # the default of transformers without warmup


@explained
@attrs.frozen(repr=False)
class InverseSqrt(Schedule):
    """Linear warmup from 0 to `lr`, then a fall with the inverse square root of the step.

    Formula, with W the warmup and S the timescale: lr * step / W before W, then
    lr / sqrt((step - W + S) / S): the `get_inverse_sqrt_schedule` of transformers (after
    big_vision). With S = W, as by default, it is lr * sqrt(W / step): fairseq's `inverse_sqrt`
    from 0 on, and the schedule of Vaswani et al. (2017), where lr = 1 / sqrt(W * d_model).
    It has no end, and does not depend on the length of the run.

    Args:
        lr: the highest learning rate, at update number W.
        warmup_steps: W.
        timescale: S in steps; None is W, or 10 000 where W is 0.

    Example:
        >>> schedule = InverseSqrt(1.0, warmup_steps=4)
        >>> [schedule(step) for step in (0, 2, 4, 16, 64)]
        [0.0, 0.5, 1.0, 0.5, 0.25]
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    warmup_steps: int = attrs.field(kw_only=True, validator=integer(minimum=0))
    timescale: int | None = attrs.field(
        default=None, kw_only=True, validator=optional(integer(minimum=1))
    )

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the lr on the way up or on the way down."""
        warmup = self.warmup_steps
        if step < warmup:
            return self.base * step / warmup
        scale = (warmup or _TIMESCALE) if self.timescale is None else self.timescale
        return self.base / math.sqrt((step - warmup + scale) / scale)
