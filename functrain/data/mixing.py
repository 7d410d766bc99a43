"""The position of one source of a mixture: read on from it, save it, restore it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from functrain.data.source import Source
from functrain.errors import DataChangedError, EmptyDatasetError

_END: Any = object()
_KEPT = 4  # epochs of a source that are remembered: an unfinished step may reach back into them


@attrs.frozen(eq=False)
class Turn:
    """The beginning of an epoch of a source: the batches and the state the source had given."""

    epoch: int
    count: int
    state: Any = None


@attrs.define(eq=False)
class Cursor:
    """One source of a mixture and where it stands.

    Attributes:
        source: the data.
        seed: of the source's own random streams.
        count: batches it has given.
        turns: where its last epochs began.
    """

    source: Source
    seed: int
    count: int = 0
    turns: list[Turn] = attrs.field(factory=lambda: [Turn(0, 0)])
    _rest: Iterator[Any] | None = None
    _saved: Any = None

    def seek(self, count: int) -> None:
        """Go to where ``count`` batches are given, without anything that was saved."""
        length = self.source.length
        if length:
            self.count, self.turns = count, [Turn(count // length, count - count % length)]
            return
        while self.count < count:
            self.next()

    def next(self) -> Any:
        """The next batch, of the next epoch where this one is through."""
        if self.count - self.turns[-1].count == self.source.length:
            self._turn()
        batch = next(self._opened(), _END)
        if batch is _END:
            # The length was unknown, or not what the data said.
            self._turn()
            batch = next(self._opened(), _END)
        if batch is _END:
            raise EmptyDatasetError(
                f"a source of the mixture gave no batch in its epoch {self.turns[-1].epoch}: "
                f"{type(self.source).__name__}. Leave it out, or see what it reads"
            )
        self.count += 1
        return batch

    def _turn(self) -> None:
        following = Turn(self.turns[-1].epoch + 1, self.count, self._state())
        self.turns, self._rest = [*self.turns[1 - _KEPT :], following], None

    def _opened(self) -> Iterator[Any]:
        if self._rest is None:
            turn, saved = self.turns[-1], self._saved
            self._rest = self.source.epoch(self.seed, turn.epoch, self.count - turn.count, saved)
            self._saved = None
        return self._rest

    def _state(self) -> Any:
        # A saved state that the source has not taken up yet is still what there is.
        return self.source.state() if self._saved is None else self._saved

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs."""
        turns = [attrs.asdict(turn, recurse=False) for turn in self.turns]
        return {"count": self.count, "turns": turns, "state": self._state()}

    def restore(self, saved: dict[str, Any], count: int) -> None:
        """Go to where ``count`` batches were given, at most as many as when it was saved."""
        turns = [Turn(**turn) for turn in saved["turns"]]
        past = [turn for turn in turns if turn.count <= count]
        if not past and saved["state"] is None and self.source.length:
            self.seek(count)
            return
        if not past:
            raise DataChangedError(
                f"the saved state of a source of a mixture begins with its batch "
                f"{turns[0].count}, and the run stands at its batch {count}"
            )
        # The end of an epoch, from which its batches can be found, is where the next one begins.
        states = [*(turn.state for turn in turns[1:]), saved["state"]]
        self.count, self.turns, self._saved = count, past, states[len(past) - 1]
