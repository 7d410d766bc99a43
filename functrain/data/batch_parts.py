"""The parts of a global batch: which rank holds which, and what every rank knows of the others.

With ``parts=k`` every loader batch is cut into k parts by ``batch_splitting.into``; one of fewer
than k samples has fewer. The parts of all loader batches of a step are numbered through. Of c
loader batches there are c * k places, shared by :func:`share`; parts that do not exist leave
their places empty. So each rank knows what to read before it reads it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from functrain.core.batch import Batch, count, size
from functrain.core.batch_splitting import MicroBatches, into, part_sizes
from functrain.errors import ConfigurationError
from functrain.errors.validators import integer

DIGESTS = 1 << 24  # float32 holds the integers below exactly, so a digest fits in a table of losses


def share(parts: int, rank: int, ranks: int) -> tuple[int, int]:
    """Return the parts that a rank computes: consecutive, and as many as others have, or one more.

    Where the parts are fewer than the ranks, some ranks have none.

    Example:
        >>> [share(4, rank, 3) for rank in range(3)]
        [(0, 1), (1, 2), (2, 4)]
    """
    return rank * parts // ranks, (rank + 1) * parts // ranks


@attrs.frozen
class Place:
    """The place of a loader batch in its step."""

    index: int
    count: int


ALONE = Place(0, 1)


@attrs.frozen
class Sharing:
    """How the ranks of a world share each step's batch.

    Attributes:
        parts: into how many parts each loader batch is cut.

    Example:
        >>> Sharing(parts=4, rank=0, ranks=3).bounds(4)  # four parts: 0 | 1 | 2, 3
        (0, 1, 2, 4)
        >>> Sharing(parts=4, rank=0, ranks=3).bounds(2)  # two samples make two parts: 0 | 1 |
        (0, 1, 2, 2)
    """

    parts: int = attrs.field(validator=integer(minimum=1))
    rank: int = attrs.field(default=0, validator=integer(minimum=0))
    ranks: int = attrs.field(default=1, validator=integer(minimum=1))

    def bounds(self, parts: int, place: Place = ALONE) -> tuple[int, ...]:
        """Return the first part of each rank in a loader batch, and the number of its parts.

        ``parts`` counts those that have samples; ``place`` is that of the loader batch in its step.
        """
        total, before = place.count * self.parts, place.index * self.parts
        starts = (share(total, rank, self.ranks)[0] for rank in range(self.ranks + 1))
        return tuple(min(max(start - before, 0), parts) for start in starts)


@attrs.frozen(eq=False)
class BatchParts:
    """The parts of a step's global batch that one rank holds.

    The step of a sharded program takes it in place of the global batch. Everything but
    :attr:`parts` is the same on every rank.

    Attributes:
        parts: the parts of this rank by their number in the step, ascending and without a gap.
        sizes: the samples in every part of the step, as drawn, before they were collated.
        bounds: ranks + 1 numbers: rank r holds the parts ``bounds[r]`` to ``bounds[r + 1] - 1``.
        consumed: the loader batches that they come from.
        empty: of these, the ones without samples.
        digest: an integer below ``2**24`` that depends on the data of the whole global batch, as
            far as this rank has seen them. Ranks with different digests read different data.
    """

    parts: Mapping[int, Batch]
    sizes: tuple[int, ...]
    bounds: tuple[int, ...]
    consumed: int = 1
    empty: int = 0
    digest: int = 0

    @property
    def samples(self) -> int:
        """The samples in the global batch."""
        return sum(self.sizes)

    def map(self, function: Callable[[Batch], Any]) -> BatchParts:
        """Return the same with ``function`` applied to each part."""
        parts = {number: function(part) for number, part in self.parts.items()}
        return attrs.evolve(self, parts=parts)


@size.register
def _samples(batch: BatchParts) -> int:
    return batch.samples


def cut(batch: Batch, sharing: Sharing, place: Place = ALONE, digest: int = 0) -> BatchParts:
    """Cut a loader batch that this rank has whole, and keep the parts of this rank.

    Example:
        >>> import torch
        >>> cut(torch.arange(5), Sharing(parts=3, rank=1, ranks=2))
        BatchParts(parts={1: tensor([2, 3]), 2: tensor([4])}, sizes=(2, 2, 1), bounds=(0, 1, 3),
                   consumed=1, empty=0, digest=0)
    """
    samples = count(batch)
    parts, sizes = [batch][:samples], [samples][:samples]
    if sharing.parts > 1 and samples:
        parts = into(batch, sharing.parts)
        sizes = part_sizes(size(batch) or samples, sharing.parts)
    bounds = sharing.bounds(len(parts), place)
    held = range(bounds[sharing.rank], bounds[sharing.rank + 1])
    own = {number: parts[number] for number in held}
    return BatchParts(own, tuple(sizes), bounds, empty=int(not samples), digest=digest)


def joined(batches: Sequence[BatchParts]) -> BatchParts:
    """Return the parts of several loader batches, each cut for its :class:`Place`, as one step."""
    return functools.reduce(_with_next, batches)


def _with_next(step: BatchParts, batch: BatchParts) -> BatchParts:
    """Return the parts of a step with those of its next loader batch."""
    first = len(step.sizes)
    return BatchParts(
        parts={**step.parts, **{first + number: part for number, part in batch.parts.items()}},
        sizes=step.sizes + batch.sizes,
        bounds=tuple(map(sum, zip(step.bounds, batch.bounds, strict=True))),
        consumed=step.consumed + batch.consumed,
        empty=step.empty + batch.empty,
        digest=(step.digest * 1_000_003 + batch.digest) % DIGESTS,
    )


def shared(batch: Batch, sharing: Sharing) -> BatchParts:
    """Return this rank's parts of a step's batch: parts, micro-batches or the global batch."""
    if isinstance(batch, BatchParts):
        _check_rank(batch, sharing)
        return batch
    if not isinstance(batch, MicroBatches):
        return cut(batch, sharing)
    if not batch.batches:
        return BatchParts({}, (), (0,) * (sharing.ranks + 1), consumed=0)
    total = len(batch.batches)
    return joined([cut(one, sharing, Place(at, total)) for at, one in enumerate(batch.batches)])


def _check_rank(batch: BatchParts, sharing: Sharing) -> None:
    ranks, rank = len(batch.bounds) - 1, sharing.rank
    if ranks == sharing.ranks and [*batch.parts] == [*range(*batch.bounds[rank : rank + 2])]:
        return
    raise ConfigurationError(
        f"expected the parts of rank {rank} of {sharing.ranks}, got the parts {[*batch.parts]} of "
        f"a batch that {ranks} ranks share by {list(batch.bounds)}: read the data with the sharing "
        "of this program"
    )
