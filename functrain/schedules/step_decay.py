"""Learning rates that jump, every so many steps or at given ones."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

import attrs

from functrain.core.schedule import Schedule, ScheduleState
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import integer, is_integer, number, plain
from functrain.schedules.fields import multiplied, plain_float


@explained
@attrs.frozen(repr=False)
class Step(Schedule):
    """Multiply the learning rate by `factor` once every so many steps.

    Formula: lr * factor**(step // every), the closed form of
    `torch.optim.lr_scheduler.StepLR` with step_size = every and gamma = factor, and
    `optax.exponential_decay` with transition_steps = every and staircase=True.

    Args:
        lr: the learning rate of the first update.
        every: how many updates have the same one.
        factor: what to multiply it with, at least 0; above 1 the learning rate grows.

    Example:
        >>> schedule = Step(1.0, every=2, factor=0.5)
        >>> [schedule(step) for step in range(5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    every: int = attrs.field(validator=integer(minimum=1))
    factor: float = attrs.field(default=0.1, converter=plain_float, validator=number(minimum=0))

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the lr after the multiplications up to `step`."""
        return multiplied(self.base, self.factor, step // self.every)


def _as_tuple(values: Iterable[int]) -> Any:
    return tuple(map(plain, values)) if isinstance(values, Iterable) else values


def _check_milestones(instance: MultiStep, attribute: attrs.Attribute[Any], value: Any) -> None:
    whole = isinstance(value, tuple) and all(is_integer(step, 0) for step in value)
    if not whole or list(value) != sorted(value):
        raise ConfigurationError(
            f"MultiStep: milestones: expected integers >= 0 in rising order, got {value!r}"
        )


@explained
@attrs.frozen(repr=False)
class MultiStep(Schedule):
    """Multiply the learning rate by `factor` at each of the milestones.

    Formula: lr * factor**n, with n the number of milestones up to `step`; the closed form of
    `torch.optim.lr_scheduler.MultiStepLR` with gamma = factor, and
    `optax.piecewise_constant_schedule` with every scale = factor. For other values at each one
    see Piecewise.

    Args:
        lr: the learning rate of the first update.
        milestones: updates that are the first of a new learning rate, rising; one that is there
            twice multiplies twice.
        factor: what to multiply it with, at least 0; above 1 the learning rate grows.

    Example:
        >>> schedule = MultiStep(1.0, milestones=[2, 3], factor=0.5)
        >>> [schedule(step) for step in range(5)]
        [1.0, 1.0, 0.5, 0.25, 0.25]
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    milestones: tuple[int, ...] = attrs.field(converter=_as_tuple, validator=_check_milestones)
    factor: float = attrs.field(default=0.1, converter=plain_float, validator=number(minimum=0))

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the lr after the milestones up to `step`."""
        return multiplied(self.base, self.factor, bisect_right(self.milestones, step))
