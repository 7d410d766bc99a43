"""What a schedule is: a frozen value that turns a step into a learning rate."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import attrs

ScheduleState: TypeAlias = dict[str, Any]
"""Nested dicts and lists of Python numbers, strings, bools and None: exactly serialisable."""


@runtime_checkable
class Schedule(Protocol):
    """A learning rate as a pure function of the step and of a small, plain state.

    The value itself never changes; what changes is the state that `init` makes, and every
    method returns a new one and leaves the one it was given as it was. A schedule whose lr
    depends on the step alone needs only `lr`; the other methods have the defaults below,
    which classes inherit by naming this protocol as their base.
    """

    __slots__ = ()

    def __call__(self, step: int) -> float:
        """Return the lr of update number `step`, from the schedule alone.

        Args:
            step: number of the update, 0 for the first.

        Raises:
            UnknownHorizonError: the schedule ends with the run, and has no `steps` of its own.
            MetricNeededError: the lr depends on metrics that were observed.
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
        """Return the state after an evaluation that gave `metric` (None: it gave none)."""
        return state

    def with_horizon(self, state: ScheduleState, steps: int) -> ScheduleState:
        """Return the state with the run's length filled in where it was left open.

        What is already set stays: a run that is resumed with another length keeps its curve.

        Args:
            state: the schedule's state.
            steps: the number of updates in the run.
        """
        return state

    def __repr__(self) -> str:
        """Return the call that makes an equal schedule, for classes of attrs fields."""
        cls = type(self)
        if not attrs.has(cls):
            return object.__repr__(self)
        values = (f"{field.alias}={getattr(self, field.name)!r}" for field in attrs.fields(cls))
        return f"{cls.__name__}({', '.join(values)})"
