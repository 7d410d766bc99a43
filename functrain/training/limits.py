"""Where a run stands, which durations have passed there, and when it ends.

``reached`` says whether a run has lasted so long, ``due`` whether an interval ended within a step.
Both are pure functions of positions and computed in integers, so they give the same answer
at the same position however often the run was resumed, and no rounding shifts an interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Protocol

import attrs

from functrain.core.state import Counters
from functrain.errors import ConfigurationError, InvalidPositionError, UnknownLengthError
from functrain.training.durations import Duration, Epochs, Minutes, Samples, Steps, duration


class Counted(Protocol):
    """A training state, or another object with its counters."""

    @property
    def counters(self) -> Counters: ...


@attrs.frozen
class Position:
    """Where a run stands between two steps.

    Args:
        step: optimizer updates done.
        samples: samples seen.
        minutes: time trained.
        epoch: epochs done.
        batch: batches done of the epoch that is under way. At the end of an epoch of known length,
            (epoch, batch=batches) and (epoch + 1, batch=0) are the same place.
        batches: batches in that epoch; None where that is unknown. Then an epoch ends only by
            its successor: (epoch + 1, batch=0).

    Raises:
        InvalidPositionError: a count is negative, the time is not finite, or batch exceeds batches.

    Example:
        >>> Position(step=17, epoch=2, batch=3, batches=7).epochs
        Fraction(17, 7)
    """

    step: int = 0
    samples: int = 0
    minutes: float = 0.0
    epoch: int = 0
    batch: int = 0
    batches: int | None = None

    @classmethod
    def of(cls, state: Counted, batches: int | None, seconds: float = 0.0) -> Position:
        """Return where a state stands."""
        at = state.counters
        return cls(at.step, at.samples, seconds / 60, at.epoch, at.batch, batches)

    def __attrs_post_init__(self) -> None:
        if min(self.step, self.samples, self.epoch, self.batch) < 0:
            raise InvalidPositionError(f"counts must be at least 0: {self}")
        if not 0 <= self.minutes < math.inf:
            raise InvalidPositionError(f"minutes must be finite and at least 0: {self}")
        if self.batches is not None and not self.batch <= self.batches > 0:
            raise InvalidPositionError(
                f"an epoch of {self.batches} batches has no such place: {self}"
            )

    @classmethod
    def read(cls, record: Mapping[str, Any] | None, batches: int | None) -> Position | None:
        """Return a position from its fields in a checkpoint, in epochs of ``batches``."""
        if record is None:
            return None
        batch = record["batch"] if batches is None else min(record["batch"], batches)
        return cls(**{**record, "batch": batch, "batches": batches})

    @property
    def epochs(self) -> Fraction:
        """Epochs done, the one under way by the part that is done of it.

        Raises:
            UnknownLengthError: that part is not known.
        """
        if self.batches is not None:
            return self.epoch + Fraction(self.batch, self.batches)
        if self.batch == 0:
            return Fraction(self.epoch)
        raise UnknownLengthError(f"batch {self.batch} of an epoch of unknown length: {self}")


def passed(duration: Duration, position: Position) -> int:
    """Return how many times `duration` has passed from the beginning to `position`.

    Raises:
        UnknownLengthError: the duration is a fraction of epochs, and their length is unknown.

    Example:
        >>> from functrain.training.durations import Epochs
        >>> passed(Epochs(0.5), Position(epoch=1, batch=4, batches=7))
        3
    """
    amount, parts = _amount(duration, position)
    n = duration.n
    return amount * n.denominator // (parts * n.numerator)


def _amount(duration: Duration, position: Position) -> tuple[int, int]:
    """Return what `duration` counts, at `position`, as numerator and denominator."""
    if isinstance(duration, Steps):
        return position.step, 1
    if isinstance(duration, Samples):
        return position.samples, 1
    if isinstance(duration, Minutes):
        return position.minutes.as_integer_ratio()
    if position.batches is not None:
        return position.epoch * position.batches + position.batch, position.batches
    if duration.n.denominator == 1:
        return position.epoch, 1
    raise UnknownLengthError(
        f'"{duration}" needs the number of batches in an epoch, which this data does not say: '
        "use whole epochs, steps or samples, or give the data a length"
    )


def reached(duration: Duration, position: Position) -> bool:
    """Return whether a run at `position` has lasted for `duration`.

    Example:
        >>> reached(Steps(10), Position(step=9)), reached(Steps(10), Position(step=10))
        (False, True)
    """
    return passed(duration, position) >= 1


def due(interval: Duration, before: Position, after: Position) -> bool:
    """Return whether a multiple of `interval` was reached between two positions.

    True at N, 2N, ..., once each, never at 0; where a step is longer than the interval, once
    for all multiples that it passes.

    Example:
        >>> steps = [Position(step=n) for n in range(7)]
        >>> [due(Steps(3), steps[n - 1], steps[n]) for n in range(1, 7)]
        [False, False, True, False, False, True]
    """
    return passed(interval, after) > passed(interval, before)


Until = Duration | str | Sequence[Duration | str]
_REASONS: dict[type, str] = {
    Steps: "max_steps",
    Epochs: "max_epochs",
    Samples: "max_samples",
    Minutes: "max_time",
}


@attrs.frozen
class Ending:
    """Why a run ends: a reason of ``Run.reason`` and the same in words."""

    reason: str
    detail: str


@attrs.frozen
class Limits:
    """Durations; the first to be reached ends a run.

    Example:
        >>> Limits.of(["2 epochs", "10 minutes"]).steps(batches=7, accumulate=2)
        8
    """

    durations: tuple[Duration, ...]

    @classmethod
    def of(cls, until: Until) -> Limits:
        """Parse one duration or several, as texts or values."""
        several = until if isinstance(until, (list, tuple)) else [until]
        durations = tuple(duration(each) for each in several)
        if not durations:
            raise ConfigurationError("until is empty: give at least one duration, '10 epochs' say")
        return cls(durations)

    @property
    def timed(self) -> bool:
        """Return whether one of the limits is a time."""
        return any(isinstance(each, Minutes) for each in self.durations)

    def reached(self, position: Position) -> Ending | None:
        """Return the limit that a run at ``position`` has reached, if any."""
        for each in self.durations:
            if reached(each, position):
                return Ending(_REASONS[type(each)], f"reached {each}")
        return None

    def steps(self, batches: int | None, accumulate: int) -> int | None:
        """Return the updates until the first limit whose steps are known beforehand, if any."""
        known = []
        for each in self.durations:
            if isinstance(each, Steps):
                known.append(each.n)
            elif isinstance(each, Epochs) and batches:
                whole, part = divmod(each.n, 1)
                per_epoch = math.ceil(batches / accumulate)
                known.append(int(whole) * per_epoch + math.ceil(part * batches / accumulate))
        return min(known, default=None)
