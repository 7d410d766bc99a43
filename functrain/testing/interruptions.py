"""Interrupt a run: by a stop, an error or a kill."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from typing import Literal

import attrs

from functrain.errors.validators import integer, one_of
from functrain.training.events import BatchBegin, BatchEnd, Stop

How = Literal["stop", "error", "kill"]
WAYS: tuple[How, ...] = ("stop", "error", "kill")


@attrs.frozen
class Cut:
    """Where a run is interrupted, and how.

    Attributes:
        step: the update after which it is interrupted.
        how: ``"stop"`` asks the run to end, ``"error"`` raises an exception in a listener
            as the next step begins, ``"kill"`` sends its process SIGKILL.
        workers: number of data workers afterwards, or ``None`` for no change.

    Example:
        >>> str(Cut(3)), str(Cut(7, "kill", workers=2))
        ('a stop at step 3', 'a kill at step 7, then 2 workers')
    """

    step: int = attrs.field(validator=integer(minimum=1))
    how: How = attrs.field(default="stop", validator=one_of(*WAYS))
    workers: int | None = None

    def __str__(self) -> str:
        word = "an error" if self.how == "error" else f"a {self.how}"
        after = "" if self.workers is None else f", then {self.workers} workers"
        return f"{word} at step {self.step}{after}"


class CutShortError(RuntimeError):
    """The exception of a :class:`Cut`, raised in a listener."""


@attrs.frozen
class Interruption:
    """A stateless listener that interrupts the run."""

    cut: Cut

    def on_batch_end(self, event: BatchEnd) -> Stop | None:
        """Stop or die after the step, before evaluation and saving."""
        if event.state.counters.step < self.cut.step:
            return None
        if self.cut.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return Stop(str(self.cut)) if self.cut.how == "stop" else None

    def on_batch_begin(self, event: BatchBegin) -> None:
        """Raise at the start of the next step, after its batch was drawn."""
        if self.cut.how == "error" and event.state.counters.step >= self.cut.step:
            raise CutShortError(str(self.cut))


def as_cuts(cuts: Iterable[int | Cut], kill: bool, workers: int | None) -> list[Cut]:
    """Return cuts in the order of their steps; numbers are killed, or stops and errors in turn."""
    ordered = sorted(cuts, key=lambda cut: cut.step if isinstance(cut, Cut) else cut)
    ways: tuple[How, ...] = ("kill",) if kill else ("stop", "error")
    found = [
        cut if isinstance(cut, Cut) else Cut(cut, ways[index % len(ways)])
        for index, cut in enumerate(ordered)
    ]
    return [cut if cut.workers is not None else attrs.evolve(cut, workers=workers) for cut in found]
