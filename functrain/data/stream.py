"""Read batches from a position on, in this process or ahead of time in worker processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from functrain import tree
from functrain.data.reading_errors import is_of_dead_worker, worker_died
from functrain.errors import WorkerError

_BLOCK = 32768  # number of samples whose order is computed at once
# A batch to read: epoch, index, samples, and any more arguments of the function that reads it.
Position = tuple[Any, ...]


class Reading(Protocol):
    """How to read: the options of :class:`functrain.data.Batches` that :func:`read_at` needs."""

    @property
    def workers(self) -> int: ...
    @property
    def prefetch(self) -> int: ...
    @property
    def pin_memory(self) -> bool: ...
    @property
    def timeout(self) -> float: ...


class BatchReader(Reading, Protocol):
    """The part of :class:`functrain.data.Batches` that :func:`stream` needs."""

    @property
    def batch_size(self) -> int: ...
    def __len__(self) -> int: ...
    def order(self, epoch: int, start: int, stop: int) -> Tensor: ...
    def read(self, epoch: int, index: int, indices: Tensor) -> Any: ...


def stream(
    batches: BatchReader, epoch: int, index: int, epochs: int | None = None
) -> Iterator[tuple[int, int, Any]]:
    """Yield ``(epoch, index, batch)`` from a position on; see :meth:`Batches.stream`."""
    yield from read_at(batches, batches.read, positions(batches, epoch, index, epochs))


def read_at(
    options: Reading, read: Callable[..., Any], places: Iterator[Position]
) -> Iterator[tuple[int, int, Any]]:
    """Yield ``(epoch, index, batch)`` for each position, ahead of time where there are workers."""
    pin = options.pin_memory and torch.cuda.is_available()
    if options.workers:
        yield from _parallel(options, read, places, pin)
        return
    for epoch, index, *rest in places:
        batch = read(epoch, index, *rest)
        yield epoch, index, pinned(batch) if pin else batch


def positions(
    batches: BatchReader, first: int, index: int, epochs: int | None = None
) -> Iterator[Position]:
    """Yield each position with its samples, computing the order in blocks of batches."""
    length, size = len(batches), batches.batch_size
    block = max(1, _BLOCK // size)
    for epoch in islice(count(first), epochs):
        for start in range(index, length, block):
            order = batches.order(epoch, start, min(start + block, length))
            for offset in range(0, len(order), size):
                yield epoch, start + offset // size, order[offset : offset + size]
        index = 0


@attrs.frozen(eq=False)
class _Read:
    """A batch returned by a worker, with its position."""

    epoch: int
    index: int
    batch: Any

    def pin_memory(self) -> _Read:
        # DataLoader's pinning thread calls this; its default would turn tuples into lists.
        return attrs.evolve(self, batch=pinned(self.batch))


@attrs.frozen(eq=False)
class _BatchDataset:
    """A dataset of whole batches by position, for DataLoader's workers."""

    read: Callable[..., Any]

    def __getitem__(self, place: Position) -> _Read:
        epoch, index, samples, *more = place
        indices = torch.tensor(samples, dtype=torch.int64)
        return _Read(epoch, index, self.read(epoch, index, indices, *more))


def _same(read: _Read) -> _Read:
    return read


def _parallel(
    options: Reading, read: Callable[..., Any], places: Iterator[Position], pin: bool
) -> Iterator[tuple[int, int, Any]]:
    """Read in worker processes of torch's DataLoader, until the generator is closed."""
    asked: deque[Position] = deque()
    loader: DataLoader[_Read] = DataLoader(
        _BatchDataset(read),  # type: ignore[arg-type]
        batch_size=None,
        # Send ints, which takes microseconds: a tensor would need a file descriptor.
        sampler=_recorded(places, asked),
        num_workers=options.workers,
        prefetch_factor=options.prefetch,
        pin_memory=pin,
        timeout=options.timeout,
        collate_fn=_same,  # type: ignore[arg-type]
        generator=torch.Generator(),  # without one, iter() would draw from the global generator
    )
    for found in _with_worker_errors(iter(loader), asked, options.timeout):
        asked.popleft()
        yield found.epoch, found.index, found.batch


def _recorded(places: Iterator[Position], asked: deque[Position]) -> Iterator[Position]:
    """Record the requests to workers; ``asked[0]`` is the batch they return next."""
    for epoch, index, indices, *more in places:
        asked.append((epoch, index, indices.tolist(), *more))
        yield asked[-1]


def _with_worker_errors(
    reads: Iterator[_Read], asked: deque[Position], timeout: float
) -> Iterator[_Read]:
    """Yield from ``reads``, translating the errors of workers that died or hang."""
    try:
        yield from reads
    except (RuntimeError, ConnectionError, EOFError) as error:
        if str(error).startswith("DataLoader timed out"):
            epoch, index, samples, *_ = asked[0]
            raise WorkerError(
                f"workers returned no batch in {timeout:g} s: waited for batch {index} of epoch "
                f"{epoch}, which has the samples {_shortened(samples)}. One of them hangs or is "
                "slow to read: try workers=0 to see where, or a longer timeout."
            ) from error
        if not is_of_dead_worker(error):
            raise
        raise worker_died(error) from error


def _shortened(samples: list[int]) -> str:
    return f"{samples[:32]}{f' and {len(samples) - 32} more' if len(samples) > 32 else ''}"


def pinned(batch: Any) -> Any:
    """Return a copy of a batch with its tensors in pinned memory."""
    return tree.map(lambda leaf: leaf.pin_memory() if isinstance(leaf, Tensor) else leaf, batch)
