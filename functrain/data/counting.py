"""How many samples a number of batches hold, where that is known without reading them."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from torch.utils.data import DataLoader, default_collate

from functrain.core.batch_sizes import count
from functrain.data.prefetched import Prefetched
from functrain.data.replay import Replay
from functrain.data.source import BatchesSource, ListSource, Source


def samples_in(source: Source, batches: int) -> int | None:
    """Return the samples in the first batches of an epoch.

    Args:
        source: the data.
        batches: how many, at most as many as an epoch has.

    Returns:
        The number; ``None`` where only reading tells, as with a ``collate`` of the user's own.

    Example:
        >>> import torch
        >>> samples_in(ListSource([torch.zeros(3, 2), torch.zeros(2, 2)]), 2)
        5
    """
    if isinstance(source, Prefetched):
        return samples_in(source.data, batches)
    if isinstance(source, ListSource):
        return sum(count(batch) for batch in source.batches[:batches])
    if isinstance(source, BatchesSource):
        data = source.batches
        if data.collate is not None or hasattr(data.dataset, "batch_at"):
            return None
        return min(batches * data.batch_size, data.samples)
    return _in_loader(source.data, batches) if isinstance(source, Replay) else None


def _in_loader(loader: Any, batches: int) -> int | None:
    # A subclass may give other batches than its dataset and sampler say.
    if type(loader) is not DataLoader or loader.collate_fn is not default_collate:
        return None
    if loader.batch_size is None or not isinstance(loader.sampler, Sized):
        return None
    return min(batches * loader.batch_size, len(loader.sampler))
