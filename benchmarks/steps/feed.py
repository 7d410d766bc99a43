"""The batches of a contender, supplied when the parent requests steps.

Every contender is a loop over such a feed. After the steps of a turn it asks for the next batch; at
that point the feed stops the clock, answers the parent, and waits. A framework that owns its loop
is therefore timed like a loop written by hand: from the moment the loop continues until it asks for
the batch after the last.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.steps import memory
from benchmarks.steps.protocol import Answer, Turn

# Longer than any run. Frameworks that prefetch one batch do not if they know the length.
_LENGTH = 10**9
Ending = Callable[[], float]


class Over(BaseException):
    """The parent requests no more steps. Not an ``Exception``, since frameworks catch those."""


class Feed:
    """An endless iterable of one batch.

    Attributes:
        losses: a contender appends the loss of each micro-batch here, as any tensor-like value.
        settle: waits until the steps have really been done; called within the time of a turn.
    """

    def __init__(self, connection: Connection, batch: Any, device: str = "cpu") -> None:
        self.batch = batch
        self.device = device
        self.losses: list[Any] = []
        self.settle: Callable[[], Any] = memory.synchronizing(device)
        self._connection = connection
        self._left = 0
        self._turn: Turn | None = None
        self._ending: Ending | None = None

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> Any:
        if not self._left:
            self._serve()
        self._left -= 1
        self.losses.clear()
        return self.batch

    def _serve(self) -> None:
        """End the current measurement and begin the next one."""
        if self._turn is not None and self._ending is None:  # the steps before a turn are done
            self.settle()
            self._begin(self._turn)
            return
        if self._ending is not None:
            self.settle()
            value = self._ending()
            loss = sum(float(loss) for loss in self.losses) / max(len(self.losses), 1)
            self._connection.send(Answer(value, loss))
        self._turn, self._ending = self._connection.recv(), None
        if self._turn is None:
            raise Over
        if self._turn.lead:
            self._left = self._turn.lead
        else:
            self._begin(self._turn)

    def _begin(self, turn: Turn) -> None:
        self._left = turn.steps
        self._ending = _MEASURES[turn.kind](self)


class Loader:
    """A feed that frameworks accept as a data loader: an iterable with a length.

    With ``parts`` it gives the micro-batches of each batch, one after another.
    """

    def __init__(self, feed: Feed, parts: Sequence[Any] = ()) -> None:
        self._feed, self._parts = feed, parts

    def __len__(self) -> int:
        return _LENGTH

    def __iter__(self) -> Iterator[Any]:
        return self._cut() if len(self._parts) > 1 else self._feed

    def _cut(self) -> Iterator[Any]:
        for _ in self._feed:
            yield from self._parts


def _seconds(feed: Feed) -> Ending:
    begin = time.perf_counter()
    return lambda: time.perf_counter() - begin


def _peak(feed: Feed) -> Ending:
    gc.collect()
    return memory.peak(feed.device)


def _resident(feed: Feed) -> Ending:
    return lambda: float(memory.resident())


def _allocated(feed: Feed) -> Ending:
    return memory.allocated()


_MEASURES: dict[str, Callable[[Feed], Ending]] = {
    "seconds": _seconds,
    "peak": _peak,
    "resident": _resident,
    "allocated": _allocated,
}
