"""What a user may write where a schedule is wanted."""

from __future__ import annotations

from numbers import Real
from typing import Any

from torch import Tensor

from functrain.core.schedule import Schedule
from functrain.errors import UnsupportedError
from functrain.schedules.constant import Constant, Lambda


def as_schedule(value: Any) -> Schedule:
    """Return a schedule for a number, a function of the step, or a schedule itself.

    Args:
        value: a float or int, a tensor without dimensions, a callable step -> lr, or a schedule.

    Raises:
        UnsupportedError: it is none of these.

    Example:
        >>> as_schedule(0.1)
        Constant(lr=0.1)
        >>> as_schedule(lambda step: 1 / (1 + step))(3)
        0.25
    """
    if isinstance(value, type):
        raise UnsupportedError(f"{value.__name__} is a class: call it, as in {value.__name__}(...)")
    if isinstance(value, Schedule):
        return value
    if isinstance(value, Tensor) and value.ndim == 0:
        return Constant(float(value.item()))
    if type(value) is not bool and isinstance(value, Real):
        return Constant(float(value))
    if callable(value):
        return Lambda(value)
    raise UnsupportedError(
        f"expected a number, a function step -> lr, or a schedule, got {type(value).__name__}: "
        f"{value!r}. A torch scheduler's class goes through functrain.schedules.from_torch"
    )
