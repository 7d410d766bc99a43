"""The learning rates that one schedule gives in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs

from functrain.core.learning_rate import (
    RESTARTED,
    SchedulerState,
    Schedules,
    each_schedule,
    length,
    own_state,
)
from functrain.core.schedule import Constant, Schedule, ScheduleState
from functrain.errors import ConfigurationError

# A last rate of a hundredth of the highest is a usual choice, one below is what a curve falls to.
_SMALL, _SAMPLES = 0.01, 64


@attrs.frozen
class Curve:
    """A schedule with its state, by the updates of the run.

    Attributes:
        own: the schedule's own state.
        start: the update of the run that is update 0 of the schedule.
    """

    schedule: Schedule
    own: ScheduleState
    start: int = 0

    @property
    def kind(self) -> str:
        """The name of the schedule's class."""
        return type(self.schedule).__name__

    @property
    def state(self) -> SchedulerState:
        """The state as the run has it."""
        return {RESTARTED: self.start, "schedule": self.own} if self.start else self.own

    def rate(self, step: int) -> float:
        """Return the learning rate of an update of the run."""
        return self.schedule.lr(self.own, step - self.start)

    def fresh(self, steps: int) -> ScheduleState:
        """Return the schedule's own state before a run of so many updates."""
        return self.schedule.with_horizon(self.schedule.init(), steps)

    def end(self, steps: int) -> int | None:
        """Return the first update from which on the rate is that of the last, if there is one."""
        last = self.rate(steps - 1)
        low = next((k for k in _doubling(self.start, steps) if self.rate(k) != last), None)
        if low is None:
            return None
        high = steps - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.rate(middle) == last else (middle, high)
        return high

    def length_end(self) -> int | None:
        """Return the update at which the length of the schedule is over, if it tells one."""
        if isinstance(self.schedule, Constant) or not getattr(self.schedule, "tells_ahead", True):
            return None
        known = length(self.schedule, self.own)
        return None if known is None else self.start + known

    def is_spent(self, step: int) -> bool:
        """Whether the schedule is over, with a rate that is not zero and trains next to nothing."""
        end = self.length_end()
        if end is None or step < end or not self.rate(step):
            return False
        every = max(1, (end - self.start) // _SAMPLES)
        highest = max(map(self.rate, range(self.start, end, every)), default=0.0)
        return self.rate(step) < highest * _SMALL

    def is_zero_for_good(self, step: int) -> bool:
        """Whether the rate of this and the next update is zero, after others above zero."""
        if self.rate(step) or not self.was_positive(step):
            return False
        try:
            return not self.rate(step + 1)
        except Exception:  # of a function that gives no rate beyond the last update
            return False

    def was_positive(self, steps: int) -> bool:
        """Whether a rate before update `steps` is above zero."""
        if any(self.rate(step) for step in _doubling(self.start, steps)):
            return True
        try:
            own = self.fresh(steps - self.start)
        except ConfigurationError:
            return False
        # A torch scheduler gives its present rate alone, so its first updates are made.
        for number in range(min(4, steps - self.start)):
            if self.schedule.lr(own, number):
                return True
            own = self.schedule.advance(own)
        return False


def curves(schedules: Schedules, state: SchedulerState) -> Iterator[tuple[str, Curve]]:
    """Yield each schedule with its state, by the names of ``learning_rate.by_name``."""
    for name, schedule, own, start in each_schedule(schedules, state):
        yield name, Curve(schedule, own, start)


def map_curves(
    function: Callable[[Curve], SchedulerState], schedules: Schedules, state: SchedulerState
) -> SchedulerState:
    """Return the scheduler state that a function gives for each schedule."""
    if isinstance(schedules, dict):
        changed = {name: map_curves(function, own, state[name]) for name, own in schedules.items()}
        return {**state, **changed}  # a population keeps more there
    return function(Curve(schedules, *own_state(state)))


def _doubling(start: int, end: int) -> Iterator[int]:
    """Yield start + 0, 1, 2, 4, ...: some fall within any curve that is not very short."""
    offset = 0
    while start + offset < end:
        yield start + offset
        offset = 2 * offset or 1
