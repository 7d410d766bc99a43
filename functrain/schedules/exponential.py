"""A learning rate multiplied by the same number at every step."""

from __future__ import annotations

from typing import Any

import attrs

from functrain.core.schedule import Schedule, ScheduleState
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import number, optional
from functrain.schedules.fields import plain_float
from functrain.schedules.multiplied import multiplied


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
