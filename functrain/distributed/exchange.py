"""Sums and rows of tensors between ranks, in few messages and in a fixed order.

A partial sum goes to the ranks that own its rows, and each owner adds up what it receives in the
order of the tree. That is the traffic of a reduce-scatter, without its order of addition, which
depends on the number of ranks.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence

import attrs
import torch
import torch.distributed as dist
from torch import Tensor

from functrain.core import order
from functrain.distributed.placement import rows

Shapes = Mapping[str, Sequence[int]]


@attrs.frozen(eq=False)
class Exchange:
    """The collectives of a step.

    Attributes:
        rank: of this process.
        ranks: how many there are.
        group: their process group; ``None`` for one process.
    """

    rank: int
    ranks: int
    group: dist.ProcessGroup | None

    def rows_of_sum(
        self,
        sums: Sequence[Mapping[str, Tensor]],
        bounds: Sequence[int],
        shapes: Shapes,
        like: Tensor,
    ) -> dict[str, Tensor]:
        """Add up the gradients of all parts, and return this rank's rows of the sum.

        Args:
            sums: partial sums of this rank, one for each of its :func:`order.nodes`.
            bounds: rank r has the parts from ``bounds[r]`` to ``bounds[r + 1]``.
            shapes: of the leaves.
            like: a tensor of their dtype and device.
        """
        lists = [[leaves[path] for path in shapes] for leaves in sums]
        cuts = {path: self._rows(shape[0]) for path, shape in shapes.items()}
        sent = [
            leaf[slice(*cut[rank])].reshape(-1)
            for rank in range(self.ranks)
            for leaves in lists
            for leaf, cut in zip(leaves, cuts.values(), strict=True)
        ]
        sizes = [self._size(shapes, rank) for rank in range(self.ranks)]
        total = self._tree_sum(sent, sizes, bounds, like)
        return dict(zip(shapes, self._cut(total, shapes, self.rank), strict=True))

    def whole_sum(
        self,
        sums: Sequence[Mapping[str, Tensor]],
        bounds: Sequence[int],
        shapes: Shapes,
        like: Tensor,
    ) -> dict[str, Tensor]:
        """Add up the gradients of all parts, and return the whole sum on every rank.

        The arguments are those of :meth:`rows_of_sum`.
        """
        lengths = [math.prod(shape) for shape in shapes.values()]
        flat = [torch.cat([leaves[path].reshape(-1) for path in shapes]) for leaves in sums]
        cuts = self._rows(sum(lengths))
        sent = [one[start:stop] for start, stop in cuts for one in flat]
        sizes = [stop - start for start, stop in cuts]
        own = self._tree_sum(sent, sizes, bounds, like)
        pieces = torch.split(torch.cat(self.all_pieces(own, sizes)), lengths)
        views = zip(pieces, shapes.items(), strict=True)
        return {path: piece.view(tuple(shape)) for piece, (path, shape) in views}

    def whole(self, own: Mapping[str, Tensor], shapes: Shapes) -> dict[str, Tensor]:
        """Return whole leaves from the rows that each rank has of them.

        Args:
            own: rows of this rank, all of one dtype.
            shapes: of the whole leaves.
        """
        if not shapes:
            return {}
        sizes = [self._size(shapes, rank) for rank in range(self.ranks)]
        pieces = self.all_pieces(torch.cat([own[path].reshape(-1) for path in shapes]), sizes)
        by_rank = [self._cut(piece, shapes, rank) for rank, piece in enumerate(pieces)]
        leaves = zip(*by_rank, strict=True)
        return {path: torch.cat(parts) for path, parts in zip(shapes, leaves, strict=True)}

    def all_pieces(self, own: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Return the vectors of all ranks.

        Args:
            own: the vector of this rank.
            sizes: the length of each.
        """
        if self.ranks == 1:
            return [own]
        longest = max(sizes)
        padded = own
        if len(own) < longest:
            padded = torch.cat([own, own.new_zeros(longest - len(own))])
        found = own.new_empty(self.ranks * longest)
        dist.all_gather_into_tensor(_bytes(found), _bytes(padded), group=self.group)
        pieces = torch.split(found, longest) if longest else [found] * self.ranks
        return [piece[:size] for piece, size in zip(pieces, sizes, strict=True)]

    def _tree_sum(
        self, sent: list[Tensor], sizes: list[int], bounds: Sequence[int], like: Tensor
    ) -> Tensor:
        """Send each rank its piece of each sum, and add up this rank's pieces of the others'."""
        parts = bounds[-1]
        nodes = [order.nodes(parts, *share) for share in itertools.pairwise(bounds)]
        size = sizes[self.rank]
        if self.ranks == 1:
            received = sent
        else:
            mine = torch.cat(sent) if sent else like.new_empty(0)
            found = like.new_empty(size * sum(map(len, nodes)))
            width = like.element_size()
            coming = [size * len(one) * width for one in nodes]
            going = [each * len(nodes[self.rank]) * width for each in sizes]
            dist.all_to_all_single(_bytes(found), _bytes(mine), coming, going, group=self.group)
            received = list(torch.split(found, size)) if size else [found] * sum(map(len, nodes))
        by_node = dict(zip(itertools.chain.from_iterable(nodes), received, strict=True))
        add: Callable[[Tensor, Tensor], Tensor] = operator.add
        return order.tree_sum(parts, by_node, add)

    def _rows(self, length: int) -> list[tuple[int, int]]:
        return [rows(length, rank, self.ranks) for rank in range(self.ranks)]

    def _size(self, shapes: Shapes, rank: int) -> int:
        return sum(math.prod(shape) for shape in self.shapes(shapes, rank))

    def shapes(self, shapes: Shapes, rank: int) -> list[list[int]]:
        """Return the shapes of a rank's rows of leaves."""
        cuts = [rows(shape[0], rank, self.ranks) for shape in shapes.values()]
        return [
            [stop - start, *shape[1:]]
            for (start, stop), shape in zip(cuts, shapes.values(), strict=True)
        ]

    def _cut(self, flat: Tensor, shapes: Shapes, rank: int) -> list[Tensor]:
        own = self.shapes(shapes, rank)
        pieces = torch.split(flat, [math.prod(shape) for shape in own])
        return [piece.view(shape) for piece, shape in zip(pieces, own, strict=True)]


def _bytes(vector: Tensor) -> Tensor:
    """Return the bytes of a vector: they are only moved, and gloo knows few dtypes."""
    return vector.contiguous().view(torch.uint8)
