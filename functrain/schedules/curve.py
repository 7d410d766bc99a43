"""The curve of one schedule in one run: where it ends, and how it may go on beyond that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from functrain.core.schedule import Schedule, ScheduleState
from functrain.errors import InvalidScheduleError
from functrain.schedules.constant import Constant, Lambda
from functrain.schedules.from_torch import TorchSchedule

RESTARTED = "restarted_at"
"""Key in the state of a schedule that was begun again within its run, beside "schedule"."""

_MOST_ADVANCES = 1000  # of a schedule that only advancing tells; about 0.3 s around one of torch


@attrs.frozen
class Curve:
    """A schedule and its state, by the updates of the run.

    Attributes:
        schedule: the schedule.
        state: what the run has for it; it may have been begun again within the run.
    """

    schedule: Schedule
    state: ScheduleState

    @property
    def begun(self) -> int:
        """The update of the run that is update 0 of the schedule."""
        begun: int = self.state.get(RESTARTED, 0)
        return begun

    @property
    def own(self) -> ScheduleState:
        """The schedule's own state."""
        own: ScheduleState = self.state["schedule"] if RESTARTED in self.state else self.state
        return own

    def with_own(self, own: ScheduleState) -> ScheduleState:
        """Return the run's state with another state of the schedule."""
        return {RESTARTED: self.begun, "schedule": own} if RESTARTED in self.state else own

    def rate(self, step: int) -> float:
        """Return the learning rate of an update, where the state alone does not decide it."""
        return self.schedule.lr(self.own, step - self.begun)

    def ends_before(self, at: int, steps: int) -> bool:
        """Whether a run of `steps` updates goes on beyond the end of the curve.

        Args:
            at: updates done.
            steps: the run's length.
        """
        length = getattr(self.schedule, "horizon", lambda: None)()
        shorter = length is not None and self.begun + length < steps
        if shorter or self.is_longer(steps):
            return True
        try:
            return self.ends_at_zero(at, steps)
        except InvalidScheduleError:
            raise
        except ValueError:  # one of torch that takes no more steps
            return True

    def is_longer(self, steps: int) -> bool:
        """Whether the run has become longer than it was when the curve was begun."""
        length = steps - self.begun
        try:
            return _grows(self.own, self._opened(length))
        except InvalidScheduleError:  # a warmup that does not fit, or beyond an upper bound
            horizon = self.own.get("horizon")
            return horizon is not None and horizon < length

    def ends_at_zero(self, at: int, steps: int) -> bool:
        """Whether the last updates have a rate of exactly zero, and earlier ones had not.

        One such update at the end of a run is how some curves end. A rate that is zero throughout
        is what the user gave.

        Raises:
            ValueError: a scheduler of torch, such as OneCycleLR, takes no more steps before.
        """
        last = self._last(at, steps)
        return not any(last) and (len(last) > 1 or self.is_longer(steps)) and self._rose(steps)

    def is_over(self, step: int) -> bool:
        """Whether the curve is at zero for good, as far as that is known without the run's length.

        True from the second update on whose rate is zero.
        """
        # One of torch says its present rate alone, and a function may know no later update.
        unknown = isinstance(self.schedule, Constant | Lambda | TorchSchedule)
        if unknown or step - self.begun < 2:
            return False
        around = (self.rate(step), self.rate(step - 1), self.rate(step + 1))
        return not any(around) and self._rose(step)

    def end(self, steps: int) -> int | None:
        """Return the update from which on the rate is that at the end of the run, if it tells."""
        last = self.rate(steps - 1)
        low = next((k for k in _doubling(self.begun, steps) if self.rate(k) != last), None)
        if low is None:
            return None
        high = steps - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.rate(middle) == last else (middle, high)
        return high

    def stretched(self, at: int, steps: int) -> ScheduleState:
        """Return the state at update `at` of a run that was begun with this length.

        What a schedule learned from metrics stays.
        """
        length = steps - self.begun
        if getattr(self.schedule, "observes", "evaluation") is None:
            return self.with_own(_advanced(self.schedule, self._opened(length), at - self.begun))
        reopened = _reopened(self.schedule.init(), self.own)
        return self.with_own(self.schedule.with_horizon(reopened, length))

    def restarted(self, at: int, steps: int) -> ScheduleState:
        """Return the state of a schedule whose update 0 is `at`, and that ends with the run."""
        return {RESTARTED: at, "schedule": self._opened(steps - at)} if at else self._opened(steps)

    def _opened(self, length: int) -> ScheduleState:
        return self.schedule.with_horizon(self.schedule.init(), length)

    def _last(self, at: int, steps: int) -> list[float]:
        """The rates of the last two updates, or of the only one that is left."""
        schedule, own, first = self.schedule, self.own, at - self.begun
        count = min(steps - at, 2)
        numbers = range(steps - self.begun - count, steps - self.begun)
        known = isinstance(schedule, TorchSchedule) or steps - at <= _MOST_ADVANCES
        if not known:
            return [schedule.lr(own, number) for number in numbers]
        own = _advanced(schedule, own, numbers[0] - first)
        states = [own, schedule.advance(own)] if count == 2 else [own]
        return [schedule.lr(*each) for each in zip(states, numbers, strict=True)]

    def _rose(self, steps: int) -> bool:
        """Whether a rate before update `steps` is above zero."""
        if any(self.rate(step) for step in _doubling(self.begun, steps)):
            return True
        try:
            own = self._opened(steps - self.begun)
        except InvalidScheduleError:
            return False
        # That of a scheduler of torch is in its state.
        first = [own, *(own := self.schedule.advance(own) for _ in range(3))]
        return any(self.schedule.lr(each, number) for number, each in enumerate(first))


def _advanced(schedule: Schedule, state: ScheduleState, count: int) -> ScheduleState:
    if isinstance(schedule, TorchSchedule):
        return schedule.advanced(state, count)
    for _ in range(count):
        after = schedule.advance(state)
        if after == state:  # a function of it alone, so it stays
            break
        state = after
    return state


def _doubling(begin: int, end: int) -> Iterator[int]:
    """0, 1, 2, 4, ... from `begin` on: some within any curve that is not short for its place."""
    offset = 0
    while begin + offset < end:
        yield begin + offset
        offset = 2 * offset or 1


def _grows(saved: Any, opened: Any) -> bool:
    """Whether a horizon in `opened` is beyond the one in `saved`."""
    if isinstance(saved, dict) and isinstance(opened, dict):
        old, new = saved.get("horizon"), opened.get("horizon")
        if isinstance(old, int) and isinstance(new, int) and new > old:
            return True
        return any(_grows(own, opened.get(key)) for key, own in saved.items())
    if isinstance(saved, list) and isinstance(opened, list):
        return any(map(_grows, saved, opened))
    return False


def _reopened(made: Any, saved: Any) -> Any:
    """The saved state with all left open that the schedule leaves open for the run to fill in."""
    if isinstance(made, dict) and isinstance(saved, dict):
        return {key: _reopened(own, saved[key]) for key, own in made.items()}
    if isinstance(made, list) and isinstance(saved, list):
        return [_reopened(*pair) for pair in zip(made, saved, strict=True)]
    return None if made is None else saved
