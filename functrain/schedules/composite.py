"""The parts of schedules that are made of other schedules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from functrain.core.schedule import Observed, Schedule, ScheduleState
from functrain.errors import ConfigurationError


def observed(outer: Schedule, *inner: Schedule) -> Observed:
    """Return what the schedules inside observe."""
    # A class that only has the shape of a schedule is shown evaluations: that is the rule.
    wanted: list[Observed] = [getattr(schedule, "observes", "evaluation") for schedule in inner]
    found = set(wanted) - {None}
    if len(found) > 1:
        raise ConfigurationError(
            f"{type(outer).__name__}: some of its schedules observe the training loss of each "
            "step and others a metric of evaluations; one schedule can be shown only one of them. "
            "(A class that does not inherit from Schedule counts as one that observes evaluations)"
        )
    return found.pop() if found else None


class Times(Schedule):
    """A schedule that multiplies the rate of another one, whose state is its own."""

    __slots__ = ()

    def inner(self) -> Schedule:
        """Return the other schedule."""
        raise NotImplementedError

    def part(self, step: int) -> float:
        """Return the number to multiply with."""
        raise NotImplementedError

    def __call__(self, step: int) -> float:
        """Return the lr of update number `step`."""
        return self.part(step) * self.inner()(step)

    @property
    def observes(self) -> Observed:
        """Return the kind of value that the other schedule observes."""
        return observed(self, self.inner())

    def init(self) -> ScheduleState:
        """Return the state of the other schedule."""
        return self.inner().init()

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the product."""
        return self.part(step) * self.inner().lr(state, step)

    def advance(self, state: ScheduleState) -> ScheduleState:
        """Advance the other schedule."""
        return self.inner().advance(state)

    def observe(self, state: ScheduleState, metric: float | None) -> ScheduleState:
        """Show the metric to the other schedule."""
        return self.inner().observe(state, metric)

    def with_horizon(self, state: ScheduleState, steps: int) -> ScheduleState:
        """Give the other schedule the length of the run."""
        return self.inner().with_horizon(state, steps)

    def horizon(self) -> int | None:
        """Return the update at which the other schedule ends by itself."""
        return own_end(self.inner())


class InTurn(Schedule):
    """Schedules in turn; ``state["schedules"]`` has their states, ``state["step"]`` the updates."""

    __slots__ = ()

    def inner(self) -> Sequence[Schedule]:
        """Return the schedules."""
        raise NotImplementedError

    def in_charge(self, state: ScheduleState, step: int) -> tuple[int, int]:
        """Return the index of the schedule in charge of an update, and its own first update."""
        raise NotImplementedError

    @property
    def observes(self) -> Observed:
        """Return the kind of value that the schedules observe."""
        return observed(self, *self.inner())

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the lr of the schedule in charge."""
        index, start = self.in_charge(state, step)
        return self.inner()[index].lr(state["schedules"][index], step - start)

    def advance(self, state: ScheduleState) -> ScheduleState:
        """Count the update, and advance the schedule that was in charge of it."""
        after = self._changed(state, lambda schedule, own: schedule.advance(own))
        return {**after, "step": state["step"] + 1}

    def observe(self, state: ScheduleState, metric: float | None) -> ScheduleState:
        """Show the metric to the schedule in charge of the update at the state's step."""
        return self._changed(state, lambda schedule, own: schedule.observe(own, metric))

    def _changed(
        self, state: ScheduleState, change: Callable[[Schedule, ScheduleState], ScheduleState]
    ) -> ScheduleState:
        index, _ = self.in_charge(state, state["step"])
        children = list(state["schedules"])
        children[index] = change(self.inner()[index], children[index])
        return {**state, "schedules": children}


def check_observed(outer: Any, attribute: Any, value: Any) -> None:
    """Validate that the schedules inside observe the same thing."""
    _ = outer.observes


def check_observes_steps(outer: Any, attribute: Any, value: Schedule) -> None:
    """Validate that the schedule inside one of steps does not want evaluations."""
    if observed(outer, value) == "evaluation":
        raise ConfigurationError(
            f"{type(outer).__name__} observes the training loss of each step, and the "
            f"{type(value).__name__} inside it a metric of evaluations; one schedule can be shown "
            "only one of them. (A class that does not inherit from Schedule counts as one that "
            "observes evaluations)"
        )


def own_end(schedule: Schedule, before: int = 0) -> int | None:
    """Return where a schedule that begins after so many updates ends by itself, or None."""
    if not hasattr(schedule, "horizon"):
        return None
    own = schedule.horizon()
    return None if own is None else before + own
