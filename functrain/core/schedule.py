"""The protocol of schedules, and the schedules of a number and of a function.

A schedule is a frozen value that turns a step into a learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import attrs
from torch import Tensor

from functrain.errors import ConfigurationError, UnsupportedError

Mode: TypeAlias = Literal["min", "max"]
"""Which of two values of a metric is better: the lesser or the greater."""

ScheduleState: TypeAlias = dict[str, Any]
"""Nested dicts and lists of Python numbers, strings, bools and None: exactly serialisable."""

Observed: TypeAlias = Literal["step", "evaluation"] | None
"""What `observe` wants: the training loss of each step, a metric of evaluations, or nothing."""

_NEEDED = ("__call__", "init", "lr", "advance", "observe", "with_horizon")


@runtime_checkable
class Schedule(Protocol):
    """A learning rate as a pure function of the step and of a small, plain state.

    The value itself never changes; what changes is the state that `init` makes, and every
    method returns a new one and leaves the one it was given as it was. A schedule whose lr
    depends on the step alone needs only `lr`; the other methods have the defaults below,
    which classes inherit by naming this protocol as their base. A class that does not name it
    is a schedule when it has `__call__`, `init`, `lr`, `advance`, `observe` and `with_horizon`.
    """

    __slots__ = ()

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        # Without this, isinstance would ask classes of the same shape for `horizon` as well.
        if cls is not Schedule:
            return NotImplemented
        return all(callable(getattr(other, name, None)) for name in _NEEDED) or NotImplemented

    @property
    def tells_ahead(self) -> bool:
        """Whether `lr` gives other updates than the present one from the present state."""
        return True

    @property
    def needs_mode(self) -> bool:
        """Whether it observes evaluations without knowing if less or more is better."""
        return False

    @property
    def observes(self) -> Observed:
        """The values that `observe` receives.

        "step" is the training loss after each update, "evaluation" a metric after each
        evaluation. None is nothing: `observe` returns the state as it is.
        """
        return None

    def __call__(self, step: int) -> float:
        """Return the lr of update number `step`, from the schedule alone.

        Args:
            step: number of the update, 0 for the first.

        Raises:
            UnknownLengthError: the schedule ends with the run, and has no `steps` of its own.
            ScheduleStateError: the lr depends on metrics that were observed.
        """
        return self.lr(self.init(), step)

    def init(self) -> ScheduleState:
        """Return the state before the first update."""
        return {}

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the lr of update number `step`, 0 for the first."""
        ...

    def advance(self, state: ScheduleState) -> ScheduleState:
        """Return the state after one more update."""
        return state

    def observe(self, state: ScheduleState, metric: float | None) -> ScheduleState:
        """Return the state after a measurement: what `observes` says, or None if there is none."""
        return state

    def with_horizon(self, state: ScheduleState, steps: int) -> ScheduleState:
        """Return the state with the run's length filled in where it was left open.

        Values already set stay: a run that is resumed with another length keeps its curve.
        """
        return state

    def horizon(self) -> int | None:
        """Return the update at which the schedule ends by itself, if it does."""
        horizon: int | None = self.init().get("horizon")
        return horizon

    def __repr__(self) -> str:
        """Return the call that makes an equal schedule, for classes of attrs fields."""
        cls = type(self)
        if not attrs.has(cls):
            return object.__repr__(self)
        values = (f"{field.alias}={getattr(self, field.name)!r}" for field in attrs.fields(cls))
        return f"{cls.__name__}({', '.join(values)})"


def observed_by(schedule: Schedule) -> Observed:
    """Return what a schedule observes; a class that only has the shape of one gets evaluations."""
    return getattr(schedule, "observes", "evaluation")


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
