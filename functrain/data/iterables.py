"""Sources over loaders, iterables and iterators, which replay to reach a position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from functrain.data.own_generators import State, generator_states, set_generator_states
from functrain.data.seeded_iteration import (
    END,
    SeededPass,
    length_of,
    refuse_empty,
)
from functrain.errors import DataChangedError


@attrs.define(eq=False)
class IterableSource:
    """A source over a torch ``DataLoader`` or another iterable that can be read repeatedly.

    Generators that the loader owns are not seeded here, because their seeds are the user's choice.
    Instead, their states before and after an epoch are saved.
    """

    data: Any
    _epoch: int = 0
    _before: dict[str, State] | None = None
    _after: dict[str, State] | None = None
    _reading: SeededPass | None = None

    replays = True

    @property
    def is_longer(self) -> bool:
        """Whether the present epoch was found to have more batches than ``length``."""
        return self._reading is not None and self._reading.is_longer

    @property
    def length(self) -> int | None:
        """The number of batches in an epoch, or ``None`` if the data has no length."""
        return length_of(self.data)

    def epoch(self, seed: int, epoch: int, start: int, saved: Any) -> Iterator[Any]:
        """Yield the batches of an epoch from ``start`` on."""
        if saved is not None:
            self._restore(seed, epoch, saved)
        self._epoch, self._before, self._after = epoch, generator_states(self.data), None
        return self._batches(seed, epoch, start)

    def _batches(self, seed: int, epoch: int, start: int) -> Iterator[Any]:
        if getattr(self.data, "persistent_workers", False):
            # Persistent workers keep random state from earlier epochs, which a resumed run could
            # not restore.
            self.data._iterator = None
        self._reading = batches = SeededPass.begin(self.data, seed, epoch)
        batches.drop(start)
        yield from batches.remaining(self.length, self._remember_end)
        if batches.index == 0:
            refuse_empty(self.data, epoch)

    def _remember_end(self, index: int) -> None:
        self._after = generator_states(self.data)

    def _restore(self, seed: int, epoch: int, saved: Any) -> None:
        """Restore the loader's generators to their state at the start of ``epoch``."""
        if saved["epoch"] == epoch:
            set_generator_states(self.data, saved["before"])
        elif saved["after"] is not None:
            set_generator_states(self.data, saved["after"])
        else:
            set_generator_states(self.data, saved["before"])
            for _ in self._batches(seed, saved["epoch"], 0):
                pass

    def state(self) -> Any:
        """Return the states of the loader's generators around the epoch, if it owns any."""
        if not self._before:
            return None
        return {"epoch": self._epoch, "before": self._before, "after": self._after}

    def close(self) -> None:
        """Do nothing: the loader belongs to the user."""


@attrs.define(eq=False)
class IteratorSource:
    """A source over an iterator or generator, which can be read once."""

    data: Iterator[Any]
    _read: tuple[int, int] | None = None

    replays = True
    length = None

    def epoch(self, seed: int, epoch: int, start: int, saved: Any) -> Iterator[Any]:
        """Yield the batches of the only epoch from ``start`` on."""
        read = (0, 0) if self._read is None else self._read
        if epoch != read[0] or start < read[1]:
            kind = type(self.data).__name__
            raise DataChangedError(
                f"a {kind} can be read only once: batch {start} of epoch {epoch} cannot be reached "
                f"after batch {read[1]} of epoch {read[0]}. Give something that can be iterated "
                "again: a list, a DataLoader, or an object whose __iter__ is a generator."
            )
        batches = SeededPass(self.data, seed, epoch, read[1])
        batches.drop(start)
        while (batch := batches.draw()) is not END:
            self._read = (epoch, batches.index)
            yield batch
        if batches.index == 0:
            refuse_empty(self.data, epoch)

    def state(self) -> None:
        """Return ``None``: the position of an iterator cannot be restored."""

    def close(self) -> None:
        """Do nothing."""
