"""Read batches from a position on, in this process or ahead of time in worker processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import count, islice
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from functrain import tree
from functrain.errors import WorkerDiedError, WorkerTimeoutError

_BLOCK = 32768  # number of samples whose order is computed at once
_Key = tuple[int, int, list[int]]  # epoch, index, samples


class BatchReader(Protocol):
    """The part of :class:`functrain.data.Batches` that :func:`stream` needs."""

    @property
    def batch_size(self) -> int: ...
    @property
    def workers(self) -> int: ...
    @property
    def prefetch(self) -> int: ...
    @property
    def pin_memory(self) -> bool: ...
    @property
    def timeout(self) -> float: ...
    def __len__(self) -> int: ...
    def order(self, epoch: int, start: int, stop: int) -> Tensor: ...
    def read(self, epoch: int, index: int, indices: Tensor) -> Any: ...


def stream(
    batches: BatchReader, epoch: int, index: int, epochs: int | None = None
) -> Iterator[tuple[int, int, Any]]:
    """Yield ``(epoch, index, batch)`` from a position on; see :meth:`Batches.stream`.

    Args:
        batches: the data.
        epoch: the first epoch.
        index: the first batch in it.
        epochs: number of epochs to read; ``None`` for no end.
    """
    pin = batches.pin_memory and torch.cuda.is_available()
    keys = _positions(batches, epoch, index, epochs)
    if batches.workers:
        yield from _parallel(batches, keys, pin)
        return
    for epoch, index, indices in keys:
        batch = batches.read(epoch, index, indices)
        yield epoch, index, pinned(batch) if pin else batch


def _positions(
    batches: BatchReader, first: int, index: int, epochs: int | None
) -> Iterator[tuple[int, int, Tensor]]:
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

    batches: BatchReader

    def __getitem__(self, key: _Key) -> _Read:
        epoch, index, indices = key
        return _Read(epoch, index, self.batches.read(epoch, index, torch.tensor(indices)))


def _same(read: _Read) -> _Read:
    return read


def _parallel(
    batches: BatchReader, keys: Iterator[tuple[int, int, Tensor]], pin: bool
) -> Iterator[tuple[int, int, Any]]:
    """Read in worker processes of torch's DataLoader, until the generator is closed."""
    asked: deque[_Key] = deque()
    loader: DataLoader[_Read] = DataLoader(
        _BatchDataset(batches),  # type: ignore[arg-type]
        batch_size=None,
        # Send ints, which takes microseconds: a tensor would need a file descriptor.
        sampler=_recorded(keys, asked),
        num_workers=batches.workers,
        prefetch_factor=batches.prefetch,
        pin_memory=pin,
        timeout=batches.timeout,
        collate_fn=_same,  # type: ignore[arg-type]
        generator=torch.Generator(),  # without one, iter() would draw from the global generator
    )
    for read in _with_worker_errors(iter(loader), asked, batches.timeout):
        asked.popleft()
        yield read.epoch, read.index, read.batch


def _recorded(keys: Iterator[tuple[int, int, Tensor]], asked: deque[_Key]) -> Iterator[_Key]:
    """Record the requests to workers; ``asked[0]`` is the batch they return next."""
    for epoch, index, indices in keys:
        asked.append((epoch, index, indices.tolist()))
        yield asked[-1]


def _with_worker_errors(
    reads: Iterator[_Read], asked: deque[_Key], timeout: float
) -> Iterator[_Read]:
    """Yield from ``reads``, translating the errors of workers that died or hang."""
    try:
        yield from reads
    except (RuntimeError, ConnectionError, EOFError) as error:
        if str(error).startswith("DataLoader timed out"):
            epoch, index, samples = asked[0]
            raise WorkerTimeoutError(
                f"workers returned no batch in {timeout:g} s: waited for batch {index} of epoch "
                f"{epoch}, which has the samples {_shortened(samples)}. One of them hangs or is "
                "slow to read: try workers=0 to see where, or a longer timeout."
            ) from error
        if not _of_a_dead_worker(error):
            raise
        raise WorkerDiedError(
            f"a process that reads data ended unexpectedly ({error}). Often it ran out of memory "
            "or crashed in native code: try workers=0 to see the error itself, fewer workers, or "
            "a smaller prefetch."
        ) from error


def _shortened(samples: list[int]) -> str:
    return f"{samples[:32]}{f' and {len(samples) - 32} more' if len(samples) > 32 else ''}"


def _of_a_dead_worker(error: Exception) -> bool:
    if isinstance(error, RuntimeError):
        return str(error).startswith("DataLoader worker (pid")
    # A worker that dies while it sends a tensor breaks the connection. An error of a connection
    # inside the dataset arrives as an error caught in a worker instead.
    return "in DataLoader worker process" not in str(error)


def pinned(batch: Any) -> Any:
    """Return a copy of a batch with its tensors in pinned memory."""
    return tree.map(lambda leaf: leaf.pin_memory() if isinstance(leaf, Tensor) else leaf, batch)
