"""Data in the order of its samples, each of them once."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import attrs
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from functrain.data.batches import Batches
from functrain.data.mixture import Mixture
from functrain.data.prefetched import Prefetched
from functrain.data.source import BatchesSource
from functrain.errors import ConfigurationError


def in_order(data: Any) -> Any:
    """Return data that gives all samples in the order of its dataset.

    ``Batches`` are read without shuffling, with the last batch of an epoch; iterables are taken to
    be in order. Refuses a loader that shuffles, leaves samples out or has a sampler of its own.

    Example:
        >>> in_order(Batches(range(10), batch_size=4, drop_last=True))
        Batches(10 samples, batch_size=4, 3 batches an epoch, in order)
    """
    if isinstance(data, Prefetched):
        return in_order(data.data)
    if isinstance(data, BatchesSource):
        return in_order(data.batches)
    if isinstance(data, Batches) and data.sampler is None:
        return attrs.evolve(data, shuffle=False, drop_last=False)
    if isinstance(data, DataLoader):
        problem = _problem(data)
    elif isinstance(data, Batches):
        problem = f"Batches with sampler={type(data.sampler).__name__}(...)"
    else:
        problem = "a Mixture" if isinstance(data, Mixture) else ""
    if problem:
        raise ConfigurationError(
            f"expected data in the order of its samples, got {problem}, so rows would belong to "
            "other samples. Give functrain.data.Batches(dataset, batch_size), or "
            "DataLoader(dataset, batch_size) without shuffling"
        )
    return data


def _problem(loader: DataLoader[Any]) -> str:
    """Return why a loader does not give all samples in order, if so."""
    dataset, batches = loader.dataset, loader.batch_sampler
    if batches is not None and type(batches) is not BatchSampler:
        return f"a DataLoader with batch_sampler={type(batches).__name__}(...)"
    # The loader's own sampler and drop_last say nothing where a batch_sampler was given.
    if batches is not None and batches.drop_last:
        return "a DataLoader with drop_last=True"
    sampler: Any = loader.sampler if batches is None else batches.sampler
    if isinstance(dataset, IterableDataset):
        return ""
    if type(sampler) is not SequentialSampler:
        return f"a DataLoader that draws samples by a {type(sampler).__name__}"
    if isinstance(dataset, Sized) and len(sampler) != len(dataset):
        return f"a DataLoader that draws {len(sampler)} of {len(dataset)} samples"
    return ""
