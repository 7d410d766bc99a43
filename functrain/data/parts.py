"""Read only the parts of each global batch that a rank holds.

Begin with :func:`by_parts`. ``data/batch_parts.py`` says which parts those are; all ranks go
through the same global batches in the same order, so position and state of the data are the same on
every rank, and the same for every number of ranks.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import attrs
from torch import Tensor
from xxhash import xxh3_64_intdigest

from functrain.core.batch import Batch, count
from functrain.core.batch_splitting import part_sizes
from functrain.data.batch_parts import DIGESTS, BatchParts, Place, Sharing, cut, joined
from functrain.data.batches import Batches
from functrain.data.description import fingerprint
from functrain.data.mixture import MixtureSource
from functrain.data.prefetched import Prefetched
from functrain.data.source import BatchesSource, LimitedSource, Source, Wrapper
from functrain.data.stream import Position, positions, read_at
from functrain.errors import UnsupportedError

# From the first batch of a step and a later batch, both of the same epoch: the places of that
# later batch and of all after it.
Places = Callable[[int, int], Iterator[Place]]
Numbers = tuple[int, ...]
_ENDLESS = 1 << 62  # more batches than a run ever draws
# A DistributedSampler and those derived from it; the loaders and samplers of Accelerate; samplers
# of torchdata and others.
_WORLD_SIZES = ("num_replicas", "num_processes", "world_size")
_PARTS = ("sampler", "batch_sampler", "dataset")
_DEEPEST = 4  # a dataset of a dataset may lead back to itself


def by_parts(source: Source, sharing: Sharing, accumulate: int = 1) -> Source:
    """Return a source that reads what one rank needs of each global batch.

    ``Batches`` read only the samples of the rank's parts, and collate each part apart (with one
    rank too: a collate function that pads to the longest sample makes other batches of parts). All
    other data are read whole on every rank, because only their own code knows their order. Either
    way :func:`step_parts` makes a step of the result.

    Example:
        >>> import torch
        >>> from functrain.data import Batches, as_source
        >>> data = Batches(torch.arange(10), 5, shuffle=False)
        >>> source = by_parts(as_source(data), Sharing(parts=2, rank=1, ranks=2))
        >>> [batch.parts for batch in source.epoch(seed=0, epoch=0, start=0, saved=None)]
        [{1: tensor([3, 4])}, {1: tensor([8, 9])}]
    """
    return _by_parts(source, sharing, _places(source.length, accumulate))


def step_parts(batches: Sequence[Batch | BatchParts], sharing: Sharing) -> BatchParts:
    """Return this rank's parts of a step."""
    found = []
    for index, batch in enumerate(batches):
        found.append(_cut(batch, sharing, Place(index, len(batches))))
    return joined(found)


def _by_parts(source: Source, sharing: Sharing, places: Places | None) -> Source:
    if isinstance(source, Prefetched):
        inner = _by_parts(source.data, sharing, places)
        if inner is source.data and places is not None:  # copy only what the rank needs
            inner = CutSource(inner, sharing, places)
        return Prefetched(inner, source.transfer, source.depth)
    if isinstance(source, LimitedSource):
        return LimitedSource(_by_parts(source.data, sharing, places), source.limit)
    if isinstance(source, BatchesSource) and places is not None:
        return BatchesByParts(source.batches, sharing=sharing, places=places)
    if isinstance(source, MixtureSource) and places is not None:
        return MixtureByParts(source.mixture, sharing=sharing, places=places)
    require_whole(getattr(source, "data", source))
    return source


def _places(length: int | None, accumulate: int) -> Places | None:
    """Return the places of loader batches; ``None`` if the last step of an epoch is unforeseen."""
    if length is None and accumulate > 1:
        return None
    return partial(_places_from, _ENDLESS if length is None else length, accumulate)


def _places_from(length: int, accumulate: int, first: int, index: int) -> Iterator[Place]:
    while True:
        for number in range(index, length):
            begin = number - (number - first) % accumulate
            yield Place(number - begin, min(accumulate, length - begin))
        first = index = 0


def _cut(batch: Batch | BatchParts, sharing: Sharing, place: Place) -> BatchParts:
    if isinstance(batch, BatchParts):
        return batch
    found = fingerprint([batch])
    return cut(batch, sharing, place, 0 if found is None else int(found, 16) % DIGESTS)


@attrs.frozen(eq=False)
class PartReader:
    """Reads this rank's parts of the batches at given positions, in any process."""

    batches: Batches
    sharing: Sharing

    def positions(self, epoch: int, index: int, places: Iterator[Place]) -> Iterator[Position]:
        """Yield each position with the samples of this rank, and the other arguments of read."""
        at = positions(self.batches, epoch, index)
        for (epoch, index, samples), place in zip(at, places, strict=False):
            sizes, bounds = _layout(self.sharing, len(samples), place)
            first, last = bounds[self.sharing.rank], bounds[self.sharing.rank + 1]
            begin = sum(sizes[:first])
            own = samples[begin : begin + sum(sizes[first:last])]
            digest = xxh3_64_intdigest(samples.numpy().tobytes()) % DIGESTS
            yield epoch, index, own, sizes, bounds, digest

    def read(
        self,
        epoch: int,
        index: int,
        samples: Tensor,
        sizes: Numbers,
        bounds: Numbers,
        digest: int,
    ) -> BatchParts:
        """Read the parts at one of these positions."""
        first, last = bounds[self.sharing.rank], bounds[self.sharing.rank + 1]
        parts, stop = {}, 0
        for number in range(first, last):
            start, stop = stop, stop + sizes[number]
            own = samples[start:stop]
            parts[number] = self.batches.read(epoch, index, own, number)
            if not count(parts[number]):
                raise UnsupportedError(
                    f"the collate function left no samples in part {number} of batch {index} of "
                    f"epoch {epoch}, which has the samples {own.tolist()}: all ranks must know "
                    "which parts have samples before they read them. Leave samples out of the "
                    "dataset instead, or give them a weight of zero"
                )
        return BatchParts(parts, sizes, bounds, digest=digest)


@functools.lru_cache
def _layout(
    sharing: Sharing, samples: int, place: Place
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the sizes and the bounds of a loader batch; all but the last batches are alike."""
    sizes = part_sizes(samples, sharing.parts)
    return tuple(sizes), sharing.bounds(len(sizes), place)


@attrs.define(eq=False, kw_only=True)
class BatchesByParts(BatchesSource):
    """A source over :class:`Batches` that reads the samples of this rank's parts only."""

    sharing: Sharing
    places: Places

    def _opened(self, epoch: int, start: int) -> Iterator[tuple[int, int, BatchParts]]:
        reader = PartReader(self.batches, self.sharing)
        at = reader.positions(epoch, start, self.places(start, start))
        return read_at(self.batches, reader.read, at)


@attrs.define(eq=False, kw_only=True)
class MixtureByParts(MixtureSource):
    """A mixture whose sources are read by parts, as far as each can be."""

    sharing: Sharing
    places: Places
    _first: int = attrs.field(default=0, init=False)  # batch of a step, in this epoch
    _ahead: Iterator[Place] = attrs.field(factory=itertools.count, init=False)

    def __attrs_post_init__(self) -> None:
        for name, cursor in self._cursors.items():
            own = partial(self._places_of, name)
            cursor.source = _by_parts(cursor.source, self.sharing, own)

    def epoch(self, seed: int, epoch: int, start: int, saved: Any) -> Iterator[BatchParts]:
        """Yield the parts of the batches of an epoch from ``start`` on."""
        self._first = start
        return super().epoch(seed, epoch, start, saved)

    def _batches(self, draw: int, stop: int) -> Iterator[BatchParts]:
        self._ahead = self.places(self._first, self._first)
        yield from super()._batches(draw, stop)

    def _named(self, name: str, batch: Any) -> BatchParts:
        # Cut here rather than in the source, which may be read to reach a position, too.
        parts = _cut(batch, self.sharing, next(self._ahead))
        digest = (parts.digest + xxh3_64_intdigest(name.encode())) % DIGESTS
        return attrs.evolve(parts.map(partial(super()._named, name)), digest=digest)

    def _places_of(self, name: str, first: int, index: int) -> Iterator[Place]:
        """Return the places of the batches of one source, from the present draw on."""
        draw = self._draw
        assert draw is not None  # a source is opened for a draw
        every = self.places(self._first, draw % self.length)
        drawn = zip(self._names(draw, _ENDLESS), every, strict=False)
        return (place for one, place in drawn if one == name)


@attrs.frozen(eq=False)
class CutSource(Wrapper):
    """A source that cuts the whole batches of another."""

    data: Source
    sharing: Sharing
    places: Places

    def epoch(self, seed: int, epoch: int, start: int, saved: Any) -> Iterator[BatchParts]:
        """Yield the parts of the batches of an epoch from ``start`` on."""
        batches = self.data.epoch(seed, epoch, start, saved)
        for batch, place in zip(batches, self.places(start, start), strict=False):
            yield _cut(batch, self.sharing, place)


def require_whole(data: Any) -> None:
    """Refuse a loader, sampler or dataset that reads only a share of the data on each rank.

    All ranks must draw the same global batch, which is then cut. Data that are split already would
    train every rank on a part of its own part, without an error.

    Example:
        >>> from torch.utils.data import DataLoader, DistributedSampler
        >>> sampler = DistributedSampler(range(8), num_replicas=4, rank=0)
        >>> require_whole(DataLoader(range(8), batch_size=2, sampler=sampler))
        Traceback (most recent call last):
        functrain.errors.UnsupportedError: DataLoader.sampler, a DistributedSampler, gives each ...
    """
    for place, part in _readers(type(data).__name__, data):
        ranks = _split_among(part)
        if ranks:
            raise UnsupportedError(
                f"{place}, a {type(part).__name__}, gives each of {ranks} ranks other samples, but "
                "the ranks of a sharded program must draw the same global batches, of which each "
                "keeps its parts. Leave the split out and give the global batch size: "
                "functrain.data.Batches(dataset, batch_size), of which each rank reads only its "
                "parts, or DataLoader(dataset, batch_size, shuffle=True), which each reads whole"
            )


def _readers(place: str, data: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield a loader, its samplers and theirs, and its dataset, each with its place."""
    yield place, data
    for name in _PARTS if depth < _DEEPEST else ():
        part = getattr(data, name, None)
        if part is not None and part is not data:
            yield from _readers(f"{place}.{name}", part, depth + 1)


def _split_among(part: Any) -> int:
    """Return the number of ranks that share what a part of a loader reads, or 0."""
    # split_dataset_by_node of Hugging Face keeps rank and world_size there.
    for holder in (part, getattr(part, "_distributed", None)):
        for name in _WORLD_SIZES:
            ranks = getattr(holder, name, None)
            if isinstance(ranks, int) and ranks > 1:
                return ranks
    return 0
