"""Refuse data that give each rank other samples.

A sharded program cuts one global batch, which every rank must draw. Data that are split by rank
already would train every rank on a part of its own part, without an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from functrain.errors import UnsupportedError

# A DistributedSampler and those derived from it; the loaders and samplers of Accelerate; samplers
# of torchdata and others.
_WORLD_SIZES = ("num_replicas", "num_processes", "world_size")
_PARTS = ("sampler", "batch_sampler", "dataset")
_DEEPEST = 4  # a dataset of a dataset may lead back to itself


def require_whole(data: Any) -> None:
    """Refuse a loader, sampler or dataset that reads only a share of the data on each rank.

    Example:
        >>> from torch.utils.data import DataLoader, DistributedSampler
        >>> sampler = DistributedSampler(range(8), num_replicas=4, rank=0)
        >>> require_whole(DataLoader(range(8), batch_size=2, sampler=sampler))
        Traceback (most recent call last):
        functrain.errors.UnsupportedError: DataLoader.sampler, a DistributedSampler, gives each ...
    """
    for place, part in _parts(type(data).__name__, data):
        ranks = _split_among(part)
        if ranks:
            raise UnsupportedError(
                f"{place}, a {type(part).__name__}, gives each of {ranks} ranks other samples, but "
                "the ranks of a sharded program must draw the same global batches, of which each "
                "keeps its parts. Leave the split out and give the global batch size: "
                "functrain.data.Batches(dataset, batch_size), of which each rank reads only its "
                "parts, or DataLoader(dataset, batch_size, shuffle=True), which each reads whole"
            )


def _parts(place: str, data: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield a loader, its samplers and theirs, and its dataset, each with its place."""
    yield place, data
    for name in _PARTS if depth < _DEEPEST else ():
        part = getattr(data, name, None)
        if part is not None and part is not data:
            yield from _parts(f"{place}.{name}", part, depth + 1)


def _split_among(part: Any) -> int:
    """Return the number of ranks that share what a part of a loader reads, or 0."""
    # split_dataset_by_node of Hugging Face keeps rank and world_size there.
    for holder in (part, getattr(part, "_distributed", None)):
        for name in _WORLD_SIZES:
            ranks = getattr(holder, name, None)
            if isinstance(ranks, int) and ranks > 1:
                return ranks
    return 0
