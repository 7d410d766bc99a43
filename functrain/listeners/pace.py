"""How fast a run goes, by the clock of the present process only."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import attrs

from functrain.core.state import Counters


@attrs.define(eq=False)
class Pace:
    """Speed and remaining time of a run, from the steps made since it was begun or resumed here.

    Args:
        steps: at which the run ends, where that is known.
        counters: where it begins.
        clock: seconds.

    Example:
        >>> import attrs, functrain as ft, torch
        >>> program = ft.program(torch.nn.Linear(1, 1), lambda m, b: m(b).mean(), ft.optim.SGD(0.1))
        >>> at = program.init().counters
        >>> now = iter([0.0, 10.0, 10.0])
        >>> pace = Pace(1000, attrs.evolve(at, step=900, samples=7200), lambda: next(now))
        >>> later = attrs.evolve(at, step=950, samples=7600)
        >>> pace.speed(later), pace.left(later)
        (40.0, 10.0)
    """

    steps: int | None
    counters: Counters
    clock: Callable[[], float] = time.monotonic
    _begun: float = attrs.field(init=False)
    _samples: int = attrs.field(init=False)
    _asked: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._begun = self._asked = self.clock()
        self._samples = self.counters.samples

    def speed(self, counters: Counters) -> float:
        """Samples a second since this was last asked."""
        now, samples = self.clock(), counters.samples
        found = (samples - self._samples) / max(now - self._asked, 1e-9)
        self._asked, self._samples = now, samples
        return found

    def left(self, counters: Counters) -> float | None:
        """Seconds until the last step, where that can be told."""
        done = counters.step - self.counters.step
        if self.steps is None or done < 1:
            return None
        each = (self.clock() - self._begun) / done
        return max(self.steps - counters.step, 0) * each


def clock_text(seconds: float) -> str:
    """A length of time for people.

    Example:
        >>> clock_text(3725.4)
        '1:02:05'
    """
    return str(timedelta(seconds=round(seconds)))
