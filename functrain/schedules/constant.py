"""A learning rate that stays, and one that any function of the step gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs

from functrain.core.schedule import Schedule, ScheduleState
from functrain.errors import InvalidScheduleError
from functrain.schedules.validators import plain_float, real


@attrs.frozen(repr=False)
class Constant(Schedule):
    """The same learning rate at every step.

    Args:
        lr: the learning rate, at least 0.

    Example:
        >>> Constant(0.1)(1000)
        0.1
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=real(minimum=0))

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the one learning rate."""
        return self.base


def _check_callable(instance: Lambda, attribute: attrs.Attribute[Any], value: object) -> None:
    if not callable(value):
        raise InvalidScheduleError(f"Lambda: expected a function of the step, got {value!r}")


@attrs.frozen(repr=False)
class Lambda(Schedule):
    """The learning rate that a function of the step returns.

    Args:
        function: step (0 for the first update) -> learning rate; must depend on nothing else,
            or resuming cannot be exact.

    Example:
        >>> Lambda(lambda step: 0.1 / (1 + step))(4)
        0.02
    """

    function: Callable[[int], float] = attrs.field(validator=_check_callable)

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the function's value at the step.

        Raises:
            InvalidScheduleError: it is no finite number from 0 up.
        """
        value = self.function(step)
        try:
            lr = float(value)
        except (TypeError, ValueError):
            lr = math.nan
        if not 0 <= lr < math.inf:
            raise InvalidScheduleError(
                f"Lambda: the function must return a finite number from 0 up, and at step {step} "
                f"it returned {value!r}"
            )
        return lr
