"""Count the samples in a number of batches without reading them."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from torch.utils.data import DataLoader, default_collate

from functrain.core.batch_sizes import count
from functrain.data.iterables import IterableSource
from functrain.data.limited import LimitedSource
from functrain.data.parts import CutSource
from functrain.data.prefetched import Prefetched
from functrain.data.source import BatchesSource, ListSource, Source


def count_samples(source: Source, batches: int) -> int | None:
    """Return the number of samples in the first batches of an epoch; ``None`` if it is unknown."""
    if isinstance(source, Prefetched | CutSource | LimitedSource):
        return count_samples(source.data, batches)
    if isinstance(source, ListSource):
        return sum(count(batch) for batch in source.batches[:batches])
    if isinstance(source, BatchesSource):
        data = source.batches
        if data.collate is not None or hasattr(data.dataset, "batch_at"):
            return None
        return min(batches * data.batch_size, data.samples)
    return _in_loader(source.data, batches) if isinstance(source, IterableSource) else None


def _in_loader(loader: Any, batches: int) -> int | None:
    # A subclass may yield other batches than its dataset and sampler imply.
    if type(loader) is not DataLoader or loader.collate_fn is not default_collate:
        return None
    if loader.batch_size is None or not isinstance(loader.sampler, Sized):
        return None
    return min(batches * loader.batch_size, len(loader.sampler))
