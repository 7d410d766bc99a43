"""One protocol for all kinds of data that the training loop reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import attrs
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from functrain.data.batches import Batches
from functrain.data.iterables import IterableSource, IteratorSource
from functrain.data.stateful import StatefulSource
from functrain.data.tables import is_table
from functrain.errors import EmptyDatasetError, UnsupportedError
from functrain.tree.objects import is_array

Batch = Any


@runtime_checkable
class Source(Protocol):
    """Data that can be read from any position of any epoch.

    Attributes:
        length: batches in an epoch, or ``None`` if unknown.
        replays: whether starting at batch k requires drawing and discarding k batches.
    """

    @property
    def length(self) -> int | None: ...

    @property
    def replays(self) -> bool: ...

    def epoch(self, seed: int, epoch: int, start: int, saved: Any) -> Iterator[Batch]:
        """Yield the batches of an epoch from ``start`` on.

        Args:
            seed: root seed of the run.
            epoch: index of the epoch.
            start: number of its batches already done.
            saved: the saved :meth:`state` of a resumed run; ``None`` in an uninterrupted run.

        Raises:
            EmptyDatasetError: an epoch has no batches.
            DataChangedError: there are fewer batches than were done, or the data can be read only
                once and was.
        """
        ...

    def state(self) -> Any:
        """Return what must be saved for a run to resume after the last yielded batch.

        Returns:
            A tree of tensors and plain values; ``None`` if seed and position suffice.
        """
        ...

    def close(self) -> None:
        """End worker processes, if there are any."""
        ...


class Wrapper:
    """A source that reads another one, ``data``, whose length, state and end are its own."""

    __slots__ = ()
    data: Source

    @property
    def length(self) -> int | None:
        """The number of batches in an epoch."""
        return self.data.length

    @property
    def replays(self) -> bool:
        """Whether the data replays."""
        return self.data.replays

    @property
    def is_longer(self) -> bool:
        """Whether the data was found to be longer than it says."""
        return bool(getattr(self.data, "is_longer", False))

    def state(self) -> Any:
        """Return the state of the data."""
        return self.data.state()

    def close(self) -> None:
        """End worker processes, if there are any."""
        self.data.close()


def take_seed(source: Source, seed: int) -> None:
    """Let ``Batches`` without a seed take the one of the run."""
    while isinstance(source, Wrapper):
        source = source.data
    if isinstance(source, BatchesSource):
        source.batches = source.batches.seeded(seed)


def takes_seed(source: Source) -> bool:
    """Return whether the seed of a run may change what a source gives."""
    while isinstance(source, Wrapper):
        source = source.data
    if isinstance(source, BatchesSource):
        return source.batches.seed is None and not source.batches.is_plain
    return not isinstance(source, ListSource)


def as_source(data: Any) -> Source:
    """Convert any kind of data to a :class:`Source`.

    Args:
        data: :class:`Batches` or a :class:`Mixture`; a list or tuple of batches; anything with
            ``state_dict`` and ``load_state_dict``; a torch ``DataLoader`` or other iterable; an
            iterator, which can be read once; or a :class:`Source`, returned unchanged.

    Raises:
        UnsupportedError: the data cannot be iterated, or yields samples rather than batches.
        EmptyDatasetError: an epoch of the data has no batches.

    Example:
        >>> source = as_source(["first", "second", "third"])
        >>> source.length, list(source.epoch(seed=0, epoch=4, start=1, saved=None))
        (3, ['second', 'third'])
    """
    source = _source_of(data)
    if source.length == 0:
        raise EmptyDatasetError(
            f"the data is an empty {type(data).__name__}: an epoch needs at least one batch. Check "
            "the dataset, its sampler or filter, and drop_last"
        )
    return source


def _source_of(data: Any) -> Source:
    if isinstance(data, Source):
        return data
    if isinstance(data, Batches):
        return BatchesSource(data)
    if callable(getattr(data, "to_source", None)):  # a Mixture
        own: Source = data.to_source()
        return own
    _check_gives_batches(data)
    if isinstance(data, list | tuple):
        return ListSource(data)
    if callable(getattr(data, "state_dict", None)) and hasattr(data, "load_state_dict"):
        return StatefulSource(data)
    return IteratorSource(data) if isinstance(data, Iterator) else IterableSource(data)


def _check_gives_batches(data: Any) -> None:
    kind = type(data).__name__
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        raise UnsupportedError(
            f"{kind} holds samples, not batches: give functrain.data.Batches(dataset, batch_size)"
        )
    if isinstance(data, Tensor | dict | str | bytes) or is_table(data) or is_array(data):
        raise UnsupportedError(
            f"data must give batches one after another, and a {kind} does not: give "
            "functrain.data.Batches(data, batch_size), or [data] if it is one batch"
        )
    if isinstance(data, tuple) and data and all(isinstance(part, Tensor) for part in data):
        raise UnsupportedError(
            "a tuple of tensors may be the columns of a data set or its batches: give "
            "functrain.data.Batches((x, y), batch_size), [(x, y)] if it is one batch, or a list of "
            "batches"
        )
    if not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
        raise UnsupportedError(
            f"data: expected Batches, a DataLoader or another iterable of batches, got {kind}"
        )


@attrs.define(eq=False)
class BatchesSource:
    """A source over :class:`Batches`, which keeps worker processes between epochs."""

    batches: Batches
    _stream: Any = None
    _at: tuple[int, int] | None = None

    replays = False

    @property
    def length(self) -> int:
        """The number of batches in an epoch."""
        return len(self.batches)

    def epoch(self, seed: int, epoch: int, start: int, saved: Any) -> Iterator[Batch]:
        """Yield the batches of an epoch from ``start`` on."""
        self.batches = self.batches.seeded(seed)
        if start >= self.length:
            return
        if self._at != (epoch, start):
            self.close()
            self._stream, self._at = self._opened(epoch, start), (epoch, start)
        for index in range(start, self.length):
            _, _, batch = next(self._stream)
            self._at = (epoch, index + 1) if index + 1 < self.length else (epoch + 1, 0)
            yield batch

    def _opened(self, epoch: int, start: int) -> Iterator[tuple[int, int, Batch]]:
        return self.batches.stream(epoch, start)

    def state(self) -> None:
        """Return ``None``: seed and position suffice."""

    def close(self) -> None:
        """End the worker processes."""
        if self._stream is not None:
            self._stream.close()
        self._stream = self._at = None


@attrs.frozen(eq=False)
class ListSource:
    """A source over a list or tuple of batches; all epochs are the same."""

    batches: list[Batch] | tuple[Batch, ...]

    replays = False

    @property
    def length(self) -> int:
        """The number of batches in an epoch."""
        return len(self.batches)

    def epoch(self, seed: int, epoch: int, start: int, saved: Any) -> Iterator[Batch]:
        """Return an iterator over the batches from ``start`` on."""
        return iter(self.batches[start:])

    def state(self) -> None:
        """Return ``None``: the position suffices."""

    def close(self) -> None:
        """Do nothing."""


@attrs.frozen(eq=False)
class LimitedSource(Wrapper):
    """A source whose epochs end after a number of batches, if not before.

    Example:
        >>> source = LimitedSource(as_source([1, 2, 3, 4]), 2)
        >>> source.length, list(source.epoch(seed=0, epoch=5, start=1, saved=None))
        (2, [2])
    """

    data: Source
    limit: int

    @property
    def length(self) -> int | None:
        """The number of batches in an epoch; ``None`` if the data may have fewer than the limit."""
        whole = self.data.length
        return None if whole is None else min(whole, self.limit)

    def epoch(self, seed: int, epoch: int, start: int, saved: Any) -> Iterator[Any]:
        """Yield the batches of an epoch from ``start`` on."""
        batches = self.data.epoch(seed, epoch, start, saved)
        for batch in islice(batches, max(0, self.limit - start)):
            if self.data.state() is not None:
                raise UnsupportedError(_with_a_state(self.data))
            yield batch

    def state(self) -> None:
        """Return ``None``: seed and position suffice."""


def _with_a_state(source: Source) -> str:
    held = getattr(source, "data", source)
    return (
        f"limit_train_batches: a {type(held).__name__} with a state or a generator of its own "
        "cannot end an epoch early and resume exactly. Give functrain.data.Batches, a DataLoader "
        "without generator=, or a part of the dataset, torch.utils.data.Subset(dataset, range(100))"
    )
