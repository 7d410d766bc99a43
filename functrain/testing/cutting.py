"""Ways to end a run before its time."""

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
    """Where a run is cut, and how.

    Attributes:
        step: after which update.
        how: ``"stop"`` asks the run to end, ``"error"`` raises an exception in a listener
            as the next step begins, ``"kill"`` sends its process SIGKILL.
        workers: of the data from then on, or ``None`` for as many as before.

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
    """The exception of a cut; it is raised in a listener."""


@attrs.frozen
class Cutting:
    """A listener that carries out a cut. It keeps nothing."""

    cut: Cut

    def on_batch_end(self, event: BatchEnd) -> Stop | None:
        """Stop, or die, once the step is made; before what is due after it is done."""
        if event.state.counters.step < self.cut.step:
            return None
        if self.cut.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return Stop(str(self.cut)) if self.cut.how == "stop" else None

    def on_batch_begin(self, event: BatchBegin) -> None:
        """Fail where the next step begins: a batch is drawn that makes none."""
        if self.cut.how == "error" and event.state.counters.step >= self.cut.step:
            raise CutShortError(str(self.cut))


def as_cuts(cuts: Iterable[int | Cut], kill: bool, workers: int | None) -> list[Cut]:
    """Cuts in the order of their steps.

    Args:
        cuts: plain numbers are cut by a stop and by an error in turn, or killed.
        kill: whether plain numbers are killed.
        workers: for those that do not say; of the data after the cut.

    Example:
        >>> [str(cut) for cut in as_cuts([5, 2], False, None)]
        ['a stop at step 2', 'an error at step 5']
    """
    ordered = sorted(cuts, key=lambda cut: cut.step if isinstance(cut, Cut) else cut)
    ways: tuple[How, ...] = ("kill",) if kill else ("stop", "error")
    found = [
        cut if isinstance(cut, Cut) else Cut(cut, ways[index % len(ways)])
        for index, cut in enumerate(ordered)
    ]
    return [cut if cut.workers is not None else attrs.evolve(cut, workers=workers) for cut in found]
