"""The speed of a run and its remaining time, measured in the present process."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import attrs

from functrain.core.state import Counters

_WEIGHT = 0.3  # of the newest speed in the smoothed one


@attrs.define(eq=False)
class Throughput:
    """Speed and remaining time of a run, from the steps since this process began or resumed it.

    Args:
        steps: the last step of the run, if known.
        counters: the counters at the start.
        clock: returns seconds.

    Example:
        >>> import attrs, functrain as ft, torch
        >>> program = ft.program(torch.nn.Linear(1, 1), lambda m, b: m(b).mean(), ft.optim.SGD(0.1))
        >>> at = program.init().counters
        >>> now = iter([0.0, 10.0, 10.0])
        >>> start = attrs.evolve(at, step=900, samples=7200)
        >>> throughput = Throughput(1000, start, lambda: next(now))
        >>> later = attrs.evolve(at, step=950, samples=7600)
        >>> throughput.samples_per_second(later), throughput.seconds_left(later)
        (40.0, 10.0)
    """

    steps: int | None
    counters: Counters
    clock: Callable[[], float] = time.monotonic
    _start: float = attrs.field(init=False)
    _samples: int = attrs.field(init=False)
    _last_call: float = attrs.field(init=False)
    _smoothed: float | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._start = self._last_call = self.clock()
        self._samples = self.counters.samples

    def samples_per_second(self, counters: Counters) -> float:
        """Return the speed since the previous call."""
        now, samples = self.clock(), counters.samples
        speed = (samples - self._samples) / max(now - self._last_call, 1e-9)
        self._last_call, self._samples = now, samples
        return speed

    def smoothed(self, counters: Counters) -> float | None:
        """Return the speed over the last calls, later ones weighing more; ``None`` before a step.

        A call between two steps does not count.
        """
        if counters.samples > self._samples:
            speed = self.samples_per_second(counters)
            last = speed if self._smoothed is None else self._smoothed
            self._smoothed = last + _WEIGHT * (speed - last)
        return self._smoothed

    @property
    def seconds(self) -> float:
        """The time since this process began or resumed the run."""
        return self.clock() - self._start

    def seconds_left(self, counters: Counters) -> float | None:
        """Return the estimated time until the last step, or ``None`` if it is unknown."""
        done = counters.step - self.counters.step
        if self.steps is None or done < 1:
            return None
        seconds_per_step = (self.clock() - self._start) / done
        return max(self.steps - counters.step, 0) * seconds_per_step


def clock_text(seconds: float) -> str:
    """Format a number of seconds as hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))
