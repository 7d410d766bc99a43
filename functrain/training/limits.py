"""When a run ends by itself, and how many steps that makes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from functrain.errors import ConfigurationError
from functrain.training.durations import Duration, Epochs, Minutes, Samples, Steps, duration
from functrain.training.position import Position, reached

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
    """Durations of which the first to be reached ends a run.

    Example:
        >>> Limits.of(["2 epochs", "10 minutes"]).steps(batches=7, accumulate=2)
        8
    """

    durations: tuple[Duration, ...]

    @classmethod
    def of(cls, until: Until) -> Limits:
        """Read one duration or several, as texts or values.

        Raises:
            InvalidDurationError: one of them is none.
            ConfigurationError: there are none.
        """
        several = until if isinstance(until, (list, tuple)) else [until]
        durations = tuple(duration(each) for each in several)
        if not durations:
            raise ConfigurationError("until is empty: give at least one duration, '10 epochs' say")
        return cls(durations)

    @property
    def timed(self) -> bool:
        """Whether the clock matters."""
        return any(isinstance(each, Minutes) for each in self.durations)

    def reached(self, position: Position) -> Ending | None:
        """The limit that a run at ``position`` has reached, if any."""
        for each in self.durations:
            if reached(each, position):
                return Ending(_REASONS[type(each)], f"reached {each}")
        return None

    def steps(self, batches: int | None, accumulate: int) -> int | None:
        """Updates until the first limit whose steps can be told beforehand.

        Args:
            batches: loader batches in an epoch, where known.
            accumulate: loader batches in a step.

        Returns:
            The number, or ``None`` where only samples or minutes (or unknown epochs) limit the run.
        """
        known = []
        for each in self.durations:
            if isinstance(each, Steps):
                known.append(each.n)
            elif isinstance(each, Epochs) and batches:
                whole, part = divmod(each.n, 1)
                per_epoch = math.ceil(batches / accumulate)
                known.append(int(whole) * per_epoch + math.ceil(part * batches / accumulate))
        return min(known, default=None)
