"""Complete the learning rate that a user gives: numbers and functions become schedules.

A schedule that goes by a metric without a mode gets the mode of the metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from numbers import Real
from typing import Any

import attrs
from torch import Tensor

from functrain.core.schedule import Mode, Schedule, ScheduleState
from functrain.errors import ConfigurationError, UnsupportedError


def plain_float(value: Any) -> Any:
    """Return a number of any library as a float, and anything else unchanged for the validator."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    try:
        return float(value) if is_number else value
    except OverflowError:  # such as 10**400
        return math.inf


def _check_rate(instance: Constant, attribute: attrs.Attribute[Any], value: object) -> None:
    if not (isinstance(value, float) and 0 <= value < math.inf):
        raise ConfigurationError(f"Constant: lr: expected a finite number >= 0, got {value!r}")


@attrs.frozen(repr=False)
class Constant(Schedule):
    """The same learning rate at every step.

    Args:
        lr: the learning rate, at least 0.

    Example:
        >>> Constant(0.1)(1000)
        0.1
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=_check_rate)

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the one learning rate."""
        return self.base


def _check_callable(instance: Lambda, attribute: attrs.Attribute[Any], value: object) -> None:
    if not callable(value):
        raise ConfigurationError(f"Lambda: expected a function of the step, got {value!r}")


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

    @property
    def tells_ahead(self) -> bool:
        """No: the function may know no later update than the present one."""
        return False

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the function's value at the step.

        Raises:
            ConfigurationError: it is no finite number from 0 up.
        """
        value = self.function(step)
        try:
            lr = float(value)
        except (TypeError, ValueError):
            lr = math.nan
        if not 0 <= lr < math.inf:
            raise ConfigurationError(
                f"Lambda: the function must return a finite number from 0 up, and at step {step} "
                f"it returned {value!r}"
            )
        return lr


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
        return Constant(plain_float(value))
    if callable(value):
        return Lambda(value)
    raise UnsupportedError(
        f"expected a number, a function step -> lr, or a schedule, got {type(value).__name__}: "
        f"{value!r}. A torch scheduler's class goes through functrain.schedules.from_torch"
    )


def with_mode(schedule: Any, mode: Mode | None) -> Any:
    """Return a schedule that takes more for better, also in schedules within it.

    One that has a ``mode`` of its own stays as it is. Schedules without a mode assume ``"min"``, so
    ``"min"`` and ``None`` change nothing.

    Example:
        >>> from functrain.schedules import Plateau
        >>> with_mode(Plateau(0.1), "max").mode, with_mode(Plateau(0.1, mode="min"), "max").mode
        ('max', 'min')
    """
    if mode != "max" or not any(without_mode(schedule)):
        return schedule
    if type(schedule) in (tuple, list):
        return type(schedule)(with_mode(part, mode) for part in schedule)
    needs_mode = _needs_mode(schedule)
    if needs_mode and hasattr(schedule, "mode"):
        return attrs.evolve(schedule, mode=mode)
    if needs_mode or not attrs.has(type(schedule)):
        raise ConfigurationError(
            f"{_named(schedule)} takes less for better by default, but more of the monitored "
            "metric is better. Give it mode='max' (or mode='min', if that is meant)"
        )
    fields = {field.alias: getattr(schedule, field.name) for field in attrs.fields(type(schedule))}
    return attrs.evolve(schedule, **{name: with_mode(part, mode) for name, part in fields.items()})


def without_mode(schedule: Any) -> Iterator[Any]:
    """Yield the schedules in it that go by a metric of evaluations and have no mode."""
    if _needs_mode(schedule):
        yield schedule
    else:
        for part in _parts(schedule):
            yield from without_mode(part)


def _needs_mode(part: Any) -> bool:
    # Asked of the class: a wrapper may delegate every attribute to the schedule within it.
    return hasattr(type(part), "needs_mode") and part.needs_mode is True


def _parts(schedule: Any) -> Iterator[Any]:
    if isinstance(schedule, tuple | list):
        yield from schedule
    elif isinstance(getattr(schedule, "__dict__", None), dict) and hasattr(schedule, "observe"):
        yield from vars(schedule).values()
    elif attrs.has(type(schedule)) and hasattr(schedule, "observe"):
        for field in attrs.fields(type(schedule)):
            yield getattr(schedule, field.name)


def _named(schedule: Any) -> str:
    inner = next(without_mode(schedule))
    if inner is schedule:
        return str(getattr(schedule, "name", type(schedule).__name__))
    return f"{type(inner).__name__} in {type(schedule).__name__}"
