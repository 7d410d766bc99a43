"""Tell when a listener is due, with almost no cost for the steps in between."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from fractions import Fraction
from operator import attrgetter

import attrs

from functrain.core.state import Counters
from functrain.errors import ConfigurationError, UnknownLengthError
from functrain.training.durations import Duration, Epochs, Samples, Steps, duration

Amount = Callable[[Counters], float]


def _duration(given: Interval | Duration | str) -> Duration:
    return given.every if isinstance(given, Interval) else duration(given)


@attrs.define(eq=False)
class Interval:
    """Tells after which steps a listener is due: at N, 2N, ..., never at 0.

    It agrees with ``training.limits.due``, and takes one comparison for a step at
    which nothing is due. Minutes count from :meth:`begin`.

    Args:
        every: N, a duration or its text; of another interval, its duration.

    Example:
        >>> import attrs, functrain as ft, torch
        >>> program = ft.program(torch.nn.Linear(1, 1), lambda m, b: m(b).mean(), ft.optim.SGD(0.1))
        >>> counters = program.init().counters
        >>> interval = Interval("3 steps")
        >>> interval.begin(counters, batches=None)
        >>> [n for n in range(1, 8) if interval.due(attrs.evolve(counters, step=n))]
        [3, 6]
    """

    every: Duration = attrs.field(converter=_duration)
    _amount: Amount = attrs.field(init=False, default=lambda counters: 0)
    _size: Fraction = attrs.field(init=False, default=Fraction(1))
    _next: float = attrs.field(init=False, default=math.inf)

    def begin(self, counters: Counters, batches: int | None) -> None:
        """Start counting.

        A resumed run stays at the multiples of N.
        """
        self._amount, self._size = _measure(self.every, batches)
        self._set_next(self._amount(counters))

    def due(self, counters: Counters) -> bool:
        """Return whether N has passed since the last time; call it once after each step."""
        amount = self._amount(counters)
        if amount < self._next:
            return False
        self._set_next(amount)
        return True

    def _set_next(self, amount: float) -> None:
        after = (math.floor(amount / self._size) + 1) * self._size
        self._next = math.ceil(after) if isinstance(amount, int) else float(after)


def _measure(every: Duration, batches: int | None) -> tuple[Amount, Fraction]:
    """Return what a duration counts, and the size of one interval."""
    if isinstance(every, Steps):
        return attrgetter("step"), Fraction(every.n)
    if isinstance(every, Samples):
        return attrgetter("samples"), Fraction(every.n)
    if not isinstance(every, Epochs):
        begun = time.monotonic()
        return lambda counters: time.monotonic() - begun, every.n * 60
    if every.n.denominator == 1:
        return attrgetter("epoch"), every.n
    if batches is None:
        raise UnknownLengthError(
            f'every="{every}" needs the number of batches in an epoch, which this data does not '
            "have: use whole epochs, steps or samples"
        )
    return lambda counters: counters.epoch * batches + counters.batch, every.n * batches


def whole_steps(every: Duration | str, listener: str) -> int:
    """Return N for a listener that must know before a step whether it is due.

    Example:
        >>> whole_steps("100 steps", "GradientMonitor")
        100
    """
    given = duration(every)
    if not isinstance(given, Steps):
        raise ConfigurationError(
            f'{listener}(every=...) takes steps, such as "100 steps", because it looks at a '
            f'step before it is made; got "{given}"'
        )
    return given.n
