"""The position in one source of a mixture: continue from it, save it, restore it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from functrain.data.source import Source
from functrain.errors import DataChangedError, EmptyDatasetError

_END: Any = object()
_KEPT = 4  # epochs of a source to remember: an unfinished step may reach back into them


@attrs.frozen(eq=False)
class EpochStart:
    """The start of an epoch: number of batches read before it, and the source's state."""

    epoch: int
    count: int
    state: Any = None


@attrs.define(eq=False)
class SourceCursor:
    """One source of a mixture and the position in it.

    Attributes:
        epochs: the starts of its last epochs.
    """

    source: Source
    seed: int
    count: int = 0
    epochs: list[EpochStart] = attrs.field(factory=lambda: [EpochStart(0, 0)])
    _rest: Iterator[Any] | None = None
    _saved: Any = None

    def seek(self, count: int) -> None:
        """Go to the position after ``count`` batches without a saved state."""
        length = self.source.length
        if length:
            self.count, self.epochs = count, [EpochStart(count // length, count - count % length)]
            return
        while self.count < count:
            self.next()

    def next(self) -> Any:
        """Return the next batch, starting the next epoch at the end of this one."""
        if self.count - self.epochs[-1].count == self.source.length:
            self._next_epoch()
        batch = next(self._opened(), _END)
        if batch is _END:
            # The epoch ended although its length was unknown or said otherwise.
            self._next_epoch()
            batch = next(self._opened(), _END)
        if batch is _END:
            raise EmptyDatasetError(
                f"a source of the mixture gave no batch in its epoch {self.epochs[-1].epoch}: "
                f"{type(self.source).__name__}. Remove it, or check what it reads"
            )
        self.count += 1
        return batch

    def _next_epoch(self) -> None:
        following = EpochStart(self.epochs[-1].epoch + 1, self.count, self._state())
        self.epochs, self._rest = [*self.epochs[1 - _KEPT :], following], None

    def _opened(self) -> Iterator[Any]:
        if self._rest is None:
            begin, saved = self.epochs[-1], self._saved
            self._rest = self.source.epoch(self.seed, begin.epoch, self.count - begin.count, saved)
            self._saved = None
        return self._rest

    def _state(self) -> Any:
        # The source has not read a restored state yet, so it is still the current one.
        return self.source.state() if self._saved is None else self._saved

    def state(self) -> dict[str, Any]:
        """Return the state for :meth:`restore`."""
        # Checkpoints hold the key "turns", so it must not change.
        starts = [attrs.asdict(start, recurse=False) for start in self.epochs]
        return {"count": self.count, "turns": starts, "state": self._state()}

    def restore(self, saved: dict[str, Any], count: int) -> None:
        """Go to the position after ``count`` batches, at most as many as when it was saved."""
        starts = [EpochStart(**start) for start in saved["turns"]]
        past = [start for start in starts if start.count <= count]
        if not past and saved["state"] is None and self.source.length:
            self.seek(count)
            return
        if not past:
            raise DataChangedError(
                f"the saved state of a source of a mixture begins with its batch "
                f"{starts[0].count}, and the run stands at its batch {count}"
            )
        # The state at the end of an epoch, from which its batches can be replayed, is stored at
        # the start of the next one.
        states = [*(start.state for start in starts[1:]), saved["state"]]
        self.count, self.epochs, self._saved = count, past, states[len(past) - 1]
