"""Reading a mixture: every source from where it stands, and back to there after a stop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import attrs

from functrain.core.rng import derive
from functrain.errors import DataChangedError, EmptyDatasetError

if TYPE_CHECKING:
    from functrain.data.mixture import Mixture
    from functrain.data.source import Source

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


@attrs.define(eq=False)
class MixtureSource:
    """A mixture as a source; what it saves makes resumption immediate.

    Without a saved state, as in a loop of one's own, the sources' positions are found by counting
    the draws before, and sources of unknown length are read up to there.
    """

    mixture: Mixture
    _cursors: dict[str, Cursor] = attrs.field(init=False)
    _draw: int | None = None

    @_cursors.default
    def _make_cursors(self) -> dict[str, Cursor]:
        return {name: Cursor(source, seed=0) for name, source in self.mixture.opened().items()}

    @property
    def length(self) -> int:
        """Batches in an epoch."""
        return len(self.mixture)

    @property
    def replays(self) -> bool:
        """Whether one of the sources does."""
        return any(cursor.source.replays for cursor in self._cursors.values())

    def epoch(self, seed: int, epoch: int, start: int, saved: Any) -> Iterator[Any]:
        """The batches of an epoch from ``start`` on."""
        draw = epoch * self.length + start
        if saved is not None:
            self._restore(seed, draw, saved)
        elif draw != self._draw:
            self._seek(seed, draw)
        self._draw = draw
        return self._batches(draw, (epoch + 1) * self.length)

    def _batches(self, draw: int, stop: int) -> Iterator[Any]:
        for name in self._names(draw, stop):
            batch = self._cursors[name].next()
            self._draw = draw = draw + 1
            yield (name, batch) if self.mixture.with_names else batch

    def _names(self, draw: int, stop: int) -> Iterator[str]:
        while draw < stop:
            following = min(draw + 4096, stop)
            yield from self.mixture.names(draw, following)
            draw = following

    def _seek(self, seed: int, draw: int) -> None:
        self.close()
        for name, count in self.mixture.drawn(draw).items():
            cursor = self._cursors[name]
            self._cursors[name] = Cursor(cursor.source, derive(seed, "mixture", name))
            self._cursors[name].seek(count)

    def _restore(self, seed: int, draw: int, saved: dict[str, Any]) -> None:
        if list(saved["sources"]) != list(self._cursors) or draw > saved["draw"]:
            raise DataChangedError(
                f"the run was saved at batch {saved['draw']} of a mixture of "
                f"{list(saved['sources'])}; now it stands at batch {draw} of one of "
                f"{list(self._cursors)}. Give the mixture the run was started with."
            )
        self.close()
        # Batches may have been drawn whose step was not made.
        since = self.mixture.names(draw, saved["draw"])
        for name, own in saved["sources"].items():
            cursor = Cursor(self._cursors[name].source, derive(seed, "mixture", name))
            cursor.restore(own, own["count"] - since.count(name))
            self._cursors[name] = cursor

    def state(self) -> Any:
        """Where each source stands, with its own state; ``None`` before the first epoch."""
        if self._draw is None:
            return None
        sources = {name: cursor.state() for name, cursor in self._cursors.items()}
        return {"draw": self._draw, "sources": sources}

    def close(self) -> None:
        """End the worker processes of all sources."""
        for cursor in self._cursors.values():
            cursor.source.close()
        self._draw = None
