"""Data that goes to a position by drawing all batches before it: loaders, iterables, iterators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
from torch import Tensor

from functrain.data.drawing import (
    END,
    begin,
    draw,
    drop,
    generator_states,
    length_of,
    refuse_empty,
    remaining,
    set_generator_states,
)
from functrain.errors import DataChangedError


@attrs.define(eq=False)
class Replay:
    """A torch ``DataLoader`` or any other iterable that can be read again and again.

    A generator the loader holds itself is not seeded here, as its order is the user's. Its state
    before and after an epoch is what must be saved.
    """

    data: Any
    _epoch: int = 0
    _before: dict[str, Tensor] | None = None
    _after: dict[str, Tensor] | None = None

    replays = True

    @property
    def length(self) -> int | None:
        """Batches in an epoch, if the data knows."""
        return length_of(self.data)

    def epoch(self, seed: int, epoch: int, start: int, saved: Any) -> Iterator[Any]:
        """The batches of an epoch from ``start`` on."""
        if saved is not None:
            self._restore(seed, epoch, saved)
        self._epoch, self._before, self._after = epoch, generator_states(self.data), None
        return self._batches(seed, epoch, start)

    def _batches(self, seed: int, epoch: int, start: int) -> Iterator[Any]:
        if getattr(self.data, "persistent_workers", False):
            # Workers that live on keep the random state of earlier epochs, which a resumed run
            # could not have.
            self.data._iterator = None
        batches = begin(self.data, seed, epoch)
        drop(batches, seed, epoch, 0, start)
        done = start
        for batch in remaining(
            batches,
            seed=seed,
            epoch=epoch,
            index=start,
            length=self.length,
            at_end=self._remember_end,
        ):
            done += 1
            yield batch
        if done == 0:
            refuse_empty(self.data, epoch)

    def _remember_end(self, index: int) -> None:
        self._after = generator_states(self.data)

    def _restore(self, seed: int, epoch: int, saved: Any) -> None:
        """Put the loader's own generators into the state in which ``epoch`` begins."""
        if saved["epoch"] == epoch:
            set_generator_states(self.data, saved["before"])
        elif saved["after"] is not None:
            set_generator_states(self.data, saved["after"])
        else:
            set_generator_states(self.data, saved["before"])
            for _ in self._batches(seed, saved["epoch"], 0):
                pass

    def state(self) -> Any:
        """States of the loader's own generators around the epoch; ``None`` if it has none."""
        if not self._before:
            return None
        return {"epoch": self._epoch, "before": self._before, "after": self._after}

    def close(self) -> None:
        """Nothing to end: the loader belongs to the user."""


@attrs.define(eq=False)
class OneShot:
    """An iterator or generator, which can be read once."""

    data: Iterator[Any]
    _read: tuple[int, int] | None = None

    replays = True
    length = None

    def epoch(self, seed: int, epoch: int, start: int, saved: Any) -> Iterator[Any]:
        """The batches from ``start`` on of the one epoch there is."""
        read = (0, 0) if self._read is None else self._read
        if epoch != read[0] or start < read[1]:
            kind = type(self.data).__name__
            raise DataChangedError(
                f"a {kind} can be read only once: batch {start} of epoch {epoch} cannot be reached "
                f"after batch {read[1]} of epoch {read[0]}. Give something that can be iterated "
                "again: a list, a DataLoader, or an object whose __iter__ is a generator."
            )
        drop(self.data, seed, epoch, read[1], start)
        index = start
        while (batch := draw(self.data, seed, epoch, index)) is not END:
            index += 1
            self._read = (epoch, index)
            yield batch
        if index == 0:
            refuse_empty(self.data, epoch)

    def state(self) -> None:
        """Nothing: an iterator cannot be put back, only drawn from again."""

    def close(self) -> None:
        """Nothing to end."""
