"""Batches: data as a pure function of (seed, epoch, index)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate

from functrain.core.rng import checked_seed
from functrain.data import hugging_face
from functrain.data.columns import BatchedDataset, columns_of
from functrain.data.permutation import Permutation
from functrain.data.reading_errors import stopped
from functrain.data.sample_reader import SampleReader
from functrain.data.samplers import Sampler
from functrain.data.stream import stream
from functrain.errors import (
    BatchIndexError,
    ConfigurationError,
    EmptyDatasetError,
    UnsupportedError,
)
from functrain.errors.calls import explained
from functrain.errors.validators import BOOLEAN, integer, number, plain


def _checked_sampler(sampler: Any) -> Any:
    """Return the sampler of an argument; raise for a list, or for one of torch."""
    if sampler is None or (hasattr(sampler, "indices") and hasattr(sampler, "__len__")):
        return sampler
    raise ConfigurationError(
        "Batches: sampler: expected an object with __len__ and indices(epoch, start, stop), got "
        f"a {type(sampler).__name__}. A sampler of torch goes into a DataLoader, a fixed order "
        "into torch.utils.data.Subset(dataset, indices) and shuffle=False"
    )


@explained
@attrs.frozen(eq=False, repr=False)
class Batches:
    """A dataset split into batches with random access.

    The order is a pure function of seed and epoch, the augmentation of a sample one of seed,
    epoch and sample. Neither depends on the number of workers, on the batches read before, or on
    how often a run was resumed. The global generators of torch, Python and NumPy are restored
    after each batch; code in the dataset draws from them as usual.

    Args:
        dataset: a map-style dataset or sequence of samples; or columns: a tensor, a
            ``TensorDataset``, a table (a DataFrame of pandas or polars, a pyarrow table, a
            structured array; a batch is a dict of its columns), or a dict, list or tuple of equally
            long tensors, NumPy arrays or parts of tables. Columns are indexed as a whole unless
            ``transform`` or ``collate`` is given, and so is a dataset with a method
            ``batch_at(indices)``, which returns a batch.
        batch_size: samples in a batch.
        seed: root seed of order and augmentation; by default the one of the run, and 0 without one.
        shuffle: whether to shuffle each epoch; otherwise the order is 0, 1, 2, ...
        drop_last: skip the last batch of an epoch if it is short.
        workers: processes that read ahead in :meth:`stream`; 0 reads in this process.
        prefetch: batches each worker reads ahead.
        pin_memory: put batches of :meth:`stream` into pinned memory, if CUDA is available.
        collate: makes a batch of a list of samples; default ``torch.utils.data.default_collate``.
        transform: applied to each sample. If it has a parameter ``generator`` (or ``rng``), it is
            given a separate ``torch.Generator`` (``numpy.random.Generator``) for each sample.
        sampler: the order, instead of ``shuffle``; its length is that of an epoch.
        timeout: seconds within which workers must return a batch; 0 waits forever.

    Raises:
        EmptyDatasetError: the dataset has no samples, or ``drop_last`` leaves no batch.
        UnsupportedError: the dataset has no length or no samples by index, or a column is not a
            tensor or array.
        ConfigurationError: columns differ in length, or an option has a value that it cannot have.

    Example:
        >>> batches = Batches({"x": torch.arange(10)}, batch_size=4, shuffle=False)
        >>> batches
        Batches(10 samples, batch_size=4, 3 batches an epoch, in order)
        >>> batches[0, 2]
        {'x': tensor([8, 9])}
        >>> [len(batch["x"]) for batch in batches]
        [4, 4, 2]
    """

    dataset: Any
    batch_size: int = attrs.field(converter=plain, validator=integer(minimum=1))
    seed: int | None = attrs.field(
        default=None, kw_only=True, converter=attrs.converters.optional(checked_seed)
    )
    shuffle: bool = attrs.field(default=True, kw_only=True, converter=plain, validator=BOOLEAN)
    drop_last: bool = attrs.field(default=False, kw_only=True, converter=plain, validator=BOOLEAN)
    workers: int = attrs.field(default=0, kw_only=True, validator=integer(minimum=0))
    prefetch: int = attrs.field(default=2, kw_only=True, validator=integer(minimum=1))
    pin_memory: bool = attrs.field(default=False, kw_only=True, validator=BOOLEAN)
    collate: Callable[[list[Any]], Any] | None = attrs.field(default=None, kw_only=True)
    transform: Callable[[Any], Any] | None = attrs.field(default=None, kw_only=True)
    sampler: Sampler | None = attrs.field(default=None, kw_only=True, converter=_checked_sampler)
    timeout: float = attrs.field(default=0, kw_only=True, validator=number(minimum=0, finite=False))
    _reader: BatchedDataset | SampleReader = attrs.field(init=False)
    samples: int = attrs.field(init=False)

    @_reader.default
    def _make_reader(self) -> BatchedDataset | SampleReader:
        dataset = columns_of(self.dataset)
        if dataset is None:
            _check_dataset(self.dataset)
            dataset = hugging_face.dataset_of(self.dataset)
        if self.transform is None and self.collate is None and isinstance(dataset, BatchedDataset):
            return dataset
        collate = self.collate or default_collate
        return SampleReader(dataset, self.transform, collate, self.seed or 0)

    @samples.default
    def _count(self) -> int:
        return len(self._reader if self.sampler is None else self.sampler)

    def __attrs_post_init__(self) -> None:
        if not self.samples:
            what, part = (
                ("dataset", self.dataset) if self.sampler is None else ("sampler", self.sampler)
            )
            raise EmptyDatasetError(f"the {what} has no samples: {type(part).__name__}")
        if not len(self):
            raise EmptyDatasetError(
                f"drop_last=True leaves no batch: the dataset has {self.samples} samples, less "
                f"than one batch of {self.batch_size}. Use a smaller batch_size or drop_last=False."
            )

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return (self.samples + (0 if self.drop_last else self.batch_size - 1)) // self.batch_size

    def __getitem__(self, position: tuple[int, int]) -> Any:
        """Return the batch at ``epoch, index``; a pure function, the same in any process."""
        try:
            epoch, index = map(operator.index, position)
        except (TypeError, ValueError):
            raise BatchIndexError(
                f"Batches[epoch, index] gives a batch, got [{position!r}]: the third batch of the "
                "first epoch is batches[0, 2]"
            ) from None
        return self.read(epoch, index, self.indices(epoch, index))

    def __iter__(self) -> Iterator[Any]:
        """Iterate over epoch 0 once."""
        return (batch for _, _, batch in stream(self, 0, 0, epochs=1))

    def indices(self, epoch: int, index: int) -> Tensor:
        """Return the indices of the samples in the batch at ``epoch, index``.

        Returns:
            int64 tensor of shape ``[batch_size]``, or shorter for a short last batch.

        Raises:
            BatchIndexError: no such batch exists.
        """
        if epoch < 0 or not 0 <= index < len(self):
            raise BatchIndexError(
                f"no batch {index} of epoch {epoch}: epochs count from 0 and have {len(self)} "
                f"batches, 0 to {len(self) - 1}"
            )
        return self.order(epoch, index, index + 1)

    def order(self, epoch: int, start: int, stop: int) -> Tensor:
        """Return the indices of the samples in batches ``start`` to ``stop - 1`` of an epoch."""
        first, last = start * self.batch_size, min(stop * self.batch_size, self.samples)
        if self.sampler is not None:
            found = torch.as_tensor(self.sampler.indices(epoch, first, last), dtype=torch.int64)
            if found.shape != (last - first,):
                raise _of_the_sampler(self.sampler, epoch, first, last, found)
            return found
        if self.shuffle:
            return Permutation(self.samples, self.seed or 0, epoch).indices(first, last)
        return torch.arange(first, last)

    def read(self, epoch: int, index: int, indices: Tensor, part: int | None = None) -> Any:
        """Read the batch at ``epoch, index``, or one part of it, from the samples ``indices``."""
        if isinstance(self._reader, SampleReader):
            return self._reader.read(epoch, index, indices.tolist(), part)
        try:
            return self._reader.batch_at(indices)
        except StopIteration as error:
            place = f"in batch_at, while reading batch {index} of epoch {epoch}"
            raise stopped(type(self.dataset).__name__, place) from error

    @property
    def is_plain(self) -> bool:
        """Whether no seed has an effect: columns in order, with no code that may draw."""
        in_order = not self.shuffle or self.sampler is not None
        return in_order and not isinstance(self._reader, SampleReader)

    def seeded(self, seed: int) -> Batches:
        """Return batches by a seed, unless these have a seed of their own."""
        return attrs.evolve(self, seed=seed) if self.seed is None else self

    def stream(self, epoch: int = 0, index: int = 0) -> Iterator[tuple[int, int, Any]]:
        """Yield all batches from a position on, epoch after epoch without end.

        Args:
            epoch: the epoch of the first batch.
            index: its index; the length of an epoch refers to the start of the next epoch.

        Returns:
            A generator of ``(epoch, index, batch)``. Closing it ends the worker processes.

        Raises:
            BatchIndexError: no such position exists.
            WorkerError: a worker process was killed.
            WorkerError: workers returned no batch within ``timeout`` seconds.
        """
        if epoch < 0 or not 0 <= index <= len(self):
            raise BatchIndexError(
                f"no stream from batch {index} of epoch {epoch}: an epoch has {len(self)} batches"
            )
        return stream(self, epoch, index)

    def __repr__(self) -> str:
        parts = [f"{self.samples} samples", f"batch_size={self.batch_size}"]
        parts.append(f"{len(self)} batches an epoch")
        parts.append(self._order())
        parts += [f"{name}=True" for name in ("drop_last", "pin_memory") if getattr(self, name)]
        if self.workers:
            parts.append(f"workers={self.workers}")
        return f"Batches({', '.join(parts)})"

    def _order(self) -> str:
        if self.sampler is not None:
            return f"in the order of a {type(self.sampler).__name__}"
        seed = "the seed of the run" if self.seed is None else f"seed {self.seed}"
        return f"shuffled by {seed}" if self.shuffle else "in order"


def _of_the_sampler(
    sampler: Sampler, epoch: int, first: int, last: int, found: Tensor
) -> BatchIndexError:
    kind = type(sampler).__name__
    return BatchIndexError(
        f"{kind}.indices({epoch}, {first}, {last}): expected {last - first} samples, one for each "
        f"position, got {list(found.shape)}: with a length of {len(sampler)} it must fill the "
        "positions 0 to its length in every epoch"
    )


def _check_dataset(dataset: Any) -> None:
    kind = type(dataset).__name__
    if isinstance(dataset, DataLoader):
        raise UnsupportedError(
            "Batches needs samples, and a DataLoader gives batches: give it to fit as it is, or "
            "write Batches(loader.dataset, batch_size)"
        )
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise UnsupportedError(
            f"Batches needs a dataset with a length and samples by index, and {kind} has none. "
            "Wrap an IterableDataset in a torch DataLoader: "
            "fit(program, DataLoader(dataset, batch_size=...), ...)"
        )
    if not hasattr(dataset, "__getitem__") or isinstance(dataset, str | bytes):
        raise UnsupportedError(f"Batches needs samples by index, which {kind} does not have")
