"""Which gradients travel together, and which rank adds up which elements of them.

Gradients are exchanged in buckets, so that the first are on their way while the next are laid out.
The buckets and their order follow from the parameters alone, and so
are the same on every rank whatever its parts depend on.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence

import attrs
import torch
from torch import Tensor

from functrain.core.clipping import block_size
from functrain.core.precision import summed_dtype
from functrain.core.state import Tensors

# Bytes after which a bucket is full. A smaller one can leave earlier, but each is a message.
_FULL = 4 << 20

Cuts = tuple[int, ...]
"""Of a leaf: rank r has the elements ``cuts[r]`` to ``cuts[r + 1]``, counted in the order of C."""


@attrs.frozen(eq=False)
class Bucket:
    """Leaves of one dtype whose gradients travel together.

    A vector of the bucket has first what rank 0 adds up of each leaf, then what rank 1 does.

    Attributes:
        gathered: whether every rank needs the whole sum. The vector then has leaf after leaf.
        lengths: how many elements of each leaf each rank has, by rank.
        sizes: how many of all leaves.
    """

    leaves: Mapping[str, torch.Size]
    cuts: Mapping[str, Cuts]
    gathered: bool
    dtype: torch.dtype
    lengths: list[list[int]] = attrs.field(init=False)
    sizes: list[int] = attrs.field(init=False)

    @property
    def summed(self) -> torch.dtype:
        """The dtype in which the gradients travel and are summed."""
        return summed_dtype(self.dtype)

    @lengths.default
    def _lengths(self) -> list[list[int]]:
        bounds = zip(*self.cuts.values(), strict=True)
        return [list(map(operator.sub, stop, start)) for start, stop in itertools.pairwise(bounds)]

    @sizes.default
    def _sizes(self) -> list[int]:
        return list(map(sum, self.lengths))

    def vector(self, grads: Tensors, like: Tensor) -> Tensor:
        """Return the gradients as one new vector.

        Of a leaf without one it has negative zeros, which change no sum, not even the sign of
        another zero.
        """
        if self.gathered:
            return torch.cat([self._flat(path, grads, like) for path in self.leaves])
        flat = {path: self._flat(path, grads, like) for path in self.leaves}
        return torch.cat(
            [
                flat[path][cut[rank] : cut[rank + 1]]
                for rank in range(len(self.sizes))
                for path, cut in self.cuts.items()
            ]
        )

    def by_rank(self, vector: Tensor) -> Sequence[Tensor]:
        """Return the part of a whole vector that each rank adds up."""
        return torch.split(vector, self.sizes)

    def pieces(self, part: Tensor, rank: int) -> Iterable[Tensor]:
        """Return a rank's elements of each leaf, from its part of the vector."""
        return torch.split(part, self.lengths[rank])

    def views(self, vector: Tensor) -> Tensors:
        """Return the leaves in a whole vector of a bucket that is gathered."""
        flat = torch.split(vector, [math.prod(shape) for shape in self.leaves.values()])
        pairs = zip(self.leaves.items(), flat, strict=True)
        return {path: piece.view(shape) for (path, shape), piece in pairs}

    def rows(self, part: Tensor, rank: int) -> Tensors:
        """Return a rank's rows of each leaf, from its part of the vector."""
        pairs = zip(self.leaves.items(), self.pieces(part, rank), strict=True)
        return {path: piece.view(-1, *shape[1:]) for (path, shape), piece in pairs}

    def _flat(self, path: str, grads: Tensors, like: Tensor) -> Tensor:
        if path in grads:
            return grads[path].reshape(-1).to(self.summed)
        zero = complex(-0.0, -0.0) if self.dtype.is_complex else -0.0
        size = math.prod(self.leaves[path])
        return torch.full((size,), zero, dtype=self.summed, device=like.device)


@attrs.frozen(eq=False)
class Layout:
    """The buckets of a program's trained parameters.

    Attributes:
        buckets: in the order in which they are sent.
        widths: the size of a block of each leaf, bucket by bucket; see ``clipping``.
        blocks: how many blocks each rank has of each leaf, by rank.
    """

    dtypes: Mapping[str, torch.dtype]
    buckets: Sequence[Bucket]
    widths: list[int] = attrs.field(init=False)
    blocks: list[list[int]] = attrs.field(init=False)

    @widths.default
    def _widths(self) -> list[int]:
        return [block_size(leaf) for bucket in self.buckets for leaf in bucket.leaves.values()]

    @blocks.default
    def _blocks(self) -> list[list[int]]:
        by_rank = zip(*(bucket.lengths for bucket in self.buckets), strict=True)
        return [
            [-(-n // width) for n, width in zip(itertools.chain(*each), self.widths, strict=True)]
            for each in by_rank
        ]

    @classmethod
    def of(cls, leaves: Tensors, cuts: Mapping[str, Cuts], ranks: int, full: int = _FULL) -> Layout:
        """Divide trained parameters into buckets; of those in ``cuts`` each rank needs a part."""
        kinds: dict[tuple[torch.dtype, bool], list[dict[str, torch.Size]]] = {}
        filled: dict[tuple[torch.dtype, bool], int] = {}
        order = []
        for path, leaf in reversed(leaves.items()):  # the last layer has its gradients first
            kind = leaf.dtype, path not in cuts
            if filled.get(kind, full) >= full:
                kinds.setdefault(kind, []).append({})
                order.append((kind, kinds[kind][-1]))
                filled[kind] = 0
            kinds[kind][-1][path] = leaf.shape
            filled[kind] += leaf.nbytes
        buckets = []
        for (dtype, gathered), shapes in order:
            own = _shared_out(shapes, ranks) if gathered else {path: cuts[path] for path in shapes}
            buckets.append(Bucket(shapes, own, gathered, dtype))
        return cls({path: leaf.dtype for path, leaf in leaves.items()}, buckets)

    def fits(self, leaves: Tensors) -> bool:
        """Return whether leaves have the dtypes that the layout was made for."""
        return all(leaves[path].dtype is dtype for path, dtype in self.dtypes.items())


def _shared_out(leaves: Mapping[str, torch.Size], ranks: int) -> dict[str, Cuts]:
    """Cut leaves between blocks, so that each rank has nearly as much of all of them together."""
    starts = list(itertools.accumulate(map(math.prod, leaves.values()), initial=0))
    ends = [
        _between_blocks(starts, list(leaves.values()), starts[-1] * rank // ranks)
        for rank in range(ranks + 1)
    ]
    return {
        path: tuple(min(max(end, start), stop) - start for end in ends)
        for path, (start, stop) in zip(leaves, itertools.pairwise(starts), strict=True)
    }


def _between_blocks(starts: Sequence[int], shapes: Sequence[torch.Size], place: int) -> int:
    """Return the last end of a block up to a place in leaves that lie one after another."""
    for (start, stop), shape in zip(itertools.pairwise(starts), shapes, strict=True):
        if start <= place < stop:
            size = block_size(shape)
            return start + (place - start) // size * size
    return place


@functools.lru_cache(maxsize=16)
def order_of_blocks(layout: Layout, present: frozenset[str], device: torch.device) -> Tensor:
    """Return the places of the blocks of some leaves, as :attr:`Layout.blocks` counts them."""
    found: dict[str, list[int]] = {path: [] for path in layout.dtypes if path in present}
    paths = [path for bucket in layout.buckets for path in bucket.leaves]
    places = itertools.count()
    for counts in layout.blocks:
        for path, count in zip(paths, counts, strict=True):
            found.get(path, []).extend(itertools.islice(places, count))
    chosen = list(itertools.chain.from_iterable(found.values()))
    return torch.tensor(chosen, dtype=torch.int64, device=device)
