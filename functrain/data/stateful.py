"""A source over data that saves its own position, such as torchdata's StatefulDataLoader."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import attrs

from functrain.core.global_generators import sample_scope
from functrain.data.own_generators import generator_states, set_generator_states
from functrain.data.seeded_iteration import (
    END,
    SeededPass,
    length_of,
    refuse_empty,
)
from functrain.errors import DataChangedError


@attrs.define(eq=False)
class StatefulSource:
    """A source over an iterable with ``state_dict`` and ``load_state_dict``.

    Iterating after ``load_state_dict`` must continue behind the last batch yielded before
    ``state_dict``; iterating after the end of a pass must start a new one.

    A snapshot is ``{"epoch", "done", "ended", "loader", "generators"}``: the state of the data
    after ``done`` batches of an epoch. Several are kept, for three reasons: a loop that does not
    know the length draws a batch before it has used the previous one; after a failed draw, the
    state of the data cannot be trusted; and batches of a failed step must be drawn again.
    """

    data: Any
    _at: tuple[int, int] | None = None  # (epoch, done) while that is the state of the data
    _snapshots: list[dict[str, Any]] = attrs.field(factory=list)
    _reading: SeededPass | None = None

    replays = False

    @property
    def is_longer(self) -> bool:
        """Whether the present epoch was found to have more batches than ``length``."""
        return self._reading is not None and self._reading.is_longer

    @property
    def length(self) -> int | None:
        """The number of batches in an epoch, or ``None`` if the data has no length."""
        return length_of(self.data)

    def epoch(self, seed: int, epoch: int, start: int, saved: Any) -> Iterator[Any]:
        """Yield the batches of an epoch from ``start`` on, after restoring ``saved`` if given."""
        self._at = None
        if saved is not None:
            self._snapshots = list(saved["snapshots"])
        return self._batches(seed, epoch, start, restore=saved is not None)

    def _batches(self, seed: int, epoch: int, start: int, restore: bool) -> Iterator[Any]:
        restored = self._restore(seed, epoch, start) if restore else None
        self._reading = batches = restored or SeededPass.begin(self.data, seed, epoch)
        batches.drop(start)
        done, length = start, self.length
        rest = batches.remaining(length, lambda index: self._remember(epoch, index, ended=True))
        while (batch := next(rest, END)) is not END:
            done += 1
            if done == start + 1 or length is None:
                self._remember(epoch, done, ended=False)
            self._at = (epoch, done)
            yield batch
            self._at = None  # until the next draw has succeeded
        if not done:
            refuse_empty(self.data, epoch)

    def state(self) -> Any:
        """Return the snapshots to restore from, or ``None`` before the first batch."""
        if self._at is not None and not self._remembers(*self._at):
            return {"snapshots": self._with(self._snapshot(*self._at, ended=False))}
        return {"snapshots": list(self._snapshots)} if self._snapshots else None

    def _remembers(self, epoch: int, done: int) -> bool:
        return any((s["epoch"], s["done"]) == (epoch, done) for s in self._snapshots)

    def _remember(self, epoch: int, done: int, ended: bool) -> None:
        if ended or not self._remembers(epoch, done):
            self._snapshots = self._with(self._snapshot(epoch, done, ended))

    def _with(self, snapshot: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the snapshots to keep: the start of the epoch, the last one and the new one."""
        begun = [s for s in self._snapshots[:-1] if s["ended"]][-1:]
        return [*begun, *self._snapshots[-1:], snapshot]

    def _snapshot(self, epoch: int, done: int, ended: bool) -> dict[str, Any]:
        with sample_scope():
            loader = copy.deepcopy(self.data.state_dict())
        held = generator_states(self.data)
        return {"epoch": epoch, "done": done, "ended": ended, "loader": loader, "generators": held}

    def _nearest(self, epoch: int, start: int) -> dict[str, Any] | None:
        here = [s for s in self._snapshots if s["epoch"] == epoch and s["done"] <= start]
        before = [s for s in self._snapshots if s["epoch"] < epoch]
        if not here and not before:
            if epoch == 0:
                return None  # the initial state of the data
            raise DataChangedError(
                f"the saved state of the data is of a later place than batch {start} of epoch "
                f"{epoch}, where the run stands: {type(self.data).__name__}"
            )
        return max(here or before, key=lambda s: (s["epoch"], s["done"], s["ended"]))

    def _restore(self, seed: int, epoch: int, start: int) -> SeededPass | None:
        """Load the nearest snapshot; return its pass if that is the one to continue."""
        nearest = self._nearest(epoch, start)
        if nearest is None:
            return None
        self.data.load_state_dict(copy.deepcopy(nearest["loader"]))
        here, ended = nearest["epoch"] == epoch, nearest["ended"]
        if not ended or nearest["generators"]:
            # torchdata restores its state when it is iterated: the order, but not what else was
            # drawn from a generator that the loader owns.
            batches = SeededPass.begin(self.data, seed, nearest["epoch"], nearest["done"])
            set_generator_states(self.data, nearest["generators"])
        if ended:
            return SeededPass(iter(()), seed, epoch, start) if here else None
        while not here and batches.draw() is not END:
            pass
        return batches if here else None

    def close(self) -> None:
        """Do nothing: the data belongs to the user."""
