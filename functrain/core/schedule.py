"""The protocol of schedules: frozen values that turn a step into a learning rate."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import attrs

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
        # Without this, isinstance would ask classes of the same shape for `plot` as well.
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
        """Return the lr of update number `step`.

        Args:
            state: what `init` made and the other methods returned since.
            step: number of the update, 0 for the first.
        """
        ...

    def advance(self, state: ScheduleState) -> ScheduleState:
        """Return the state after one more update."""
        return state

    def observe(self, state: ScheduleState, metric: float | None) -> ScheduleState:
        """Return the state after a measurement.

        Args:
            state: the schedule's state.
            metric: the training loss of the step or the metric of the evaluation, as `observes`
                says; None where there is none.
        """
        return state

    def with_horizon(self, state: ScheduleState, steps: int) -> ScheduleState:
        """Return the state with the run's length filled in where it was left open.

        Values already set stay: a run that is resumed with another length keeps its curve.

        Args:
            state: the schedule's state.
            steps: the number of updates in the run.
        """
        return state

    def horizon(self) -> int | None:
        """Return the update at which the schedule ends by itself.

        Returns:
            None where the length of the run decides, or where it has no end.
        """
        horizon: int | None = self.init().get("horizon")
        return horizon

    def plot(self, steps: int | None = None, ax: Any = None) -> Any:
        """Draw the learning rate of each update.

        Args:
            steps: how many updates, as of a run of that length; None is the schedule's horizon.
            ax: matplotlib's `Axes` to draw on; None makes new ones, in a figure of their own.

        Returns:
            The `Axes`, which notebooks show; `.figure` has `savefig`.

        Raises:
            UnknownLengthError: no steps are given, and the schedule has no horizon of its own.
            ScheduleStateError: the lr depends on metrics that are observed.
            MissingExtraError: matplotlib is not installed.
        """
        # By name, because the step is imported without any room that draws.
        return import_module("functrain.plotting").schedule_curve(self, steps, ax)

    def __repr__(self) -> str:
        """Return the call that makes an equal schedule, for classes of attrs fields."""
        cls = type(self)
        if not attrs.has(cls):
            return object.__repr__(self)
        values = (f"{field.alias}={getattr(self, field.name)!r}" for field in attrs.fields(cls))
        return f"{cls.__name__}({', '.join(values)})"
