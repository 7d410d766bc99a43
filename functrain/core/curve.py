"""The learning rates that one schedule gives in one run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from functrain.core.given_schedules import Constant
from functrain.core.schedule import Schedule, ScheduleState
from functrain.errors import ConfigurationError

RESTARTED = "restarted_at"
"""Key in the state of a schedule that was restarted within its run, beside "schedule"."""

# A last rate of a hundredth of the highest is a usual choice, one below is what a curve falls to.
_SMALL, _SAMPLES = 0.01, 64


@attrs.frozen
class Curve:
    """A schedule with its state, by the updates of the run.

    Attributes:
        state: what the run has for it; it may have been restarted within the run.
    """

    schedule: Schedule
    state: ScheduleState

    @property
    def start(self) -> int:
        """The update of the run that is update 0 of the schedule."""
        start: int = self.state.get(RESTARTED, 0)
        return start

    @property
    def own(self) -> ScheduleState:
        """The schedule's own state."""
        own: ScheduleState = self.state["schedule"] if RESTARTED in self.state else self.state
        return own

    def with_own(self, own: ScheduleState) -> ScheduleState:
        """Return the run's state with another state of the schedule."""
        return {RESTARTED: self.start, "schedule": own} if RESTARTED in self.state else own

    @property
    def length_end(self) -> int | None:
        """The update of the run at which the length of the schedule is over, if it tells one."""
        if isinstance(self.schedule, Constant) or not getattr(self.schedule, "tells_ahead", True):
            return None
        own = self.schedule.horizon() if hasattr(self.schedule, "horizon") else None
        length = self.own.get("horizon") if own is None else own
        return None if length is None else self.start + length

    def is_spent(self, step: int) -> bool:
        """Whether the schedule is over, with a rate that is not zero and trains next to nothing."""
        end = self.length_end
        if end is None or step < end or not self.rate(step):
            return False
        every = max(1, (end - self.start) // _SAMPLES)
        highest = max(map(self.rate, range(self.start, end, every)), default=0.0)
        return self.rate(step) < highest * _SMALL

    def rate(self, step: int) -> float:
        """Return the learning rate of an update of the run."""
        return self.schedule.lr(self.own, step - self.start)

    def is_over(self, step: int) -> bool:
        """Whether the rate has fallen to zero for good, as far as the present state tells.

        True from the second update on whose rate is zero.
        """
        ahead = getattr(self.schedule, "tells_ahead", True)
        if isinstance(self.schedule, Constant) or not ahead or step - self.start < 2:
            return False
        if self.rate(step) or self.rate(step - 1) or not self.was_positive(step):
            return False
        try:
            return not self.rate(step + 1)
        except Exception:  # of a function that gives no rate beyond the last update
            return False

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

    def fresh(self, steps: int) -> ScheduleState:
        """Return the schedule's own state before a run of so many updates."""
        return self.schedule.with_horizon(self.schedule.init(), steps)

    def overruled(self) -> list[tuple[str, int, int]]:
        """Return the lengths of the schedule that its state, of another one, overrules.

        Each is (name, in the state, given).

        Example:
            >>> from functrain.schedules import Cosine
            >>> Curve(Cosine(0.1, steps=60), {"horizon": 30}).overruled()
            [('steps', 30, 60)]
        """
        return list(_overruled(self.schedule.init(), self.own))


def _overruled(initial: Any, saved: Any) -> Iterator[tuple[str, int, int]]:
    if isinstance(initial, dict) and isinstance(saved, dict):
        for key, name in (("warmup", "warmup_steps"), ("horizon", "steps")):
            given, kept = initial.get(key), saved.get(key)
            if isinstance(given, int) and isinstance(kept, int) and given != kept:
                yield name, kept, given
        pairs: Iterable[Any] = [(own, saved.get(key)) for key, own in initial.items()]
    elif isinstance(initial, list) and isinstance(saved, list):
        pairs = zip(initial, saved, strict=False)
    else:
        return
    for pair in pairs:
        yield from _overruled(*pair)


def _doubling(start: int, end: int) -> Iterator[int]:
    """Yield start + 0, 1, 2, 4, ...: some fall within any curve that is not very short."""
    offset = 0
    while start + offset < end:
        yield start + offset
        offset = 2 * offset or 1
