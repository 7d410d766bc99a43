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
from functrain.distributed.placement import Division, Rows, rows


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
        division: Division,
        like: Tensor,
    ) -> dict[str, Tensor]:
        """Add up the gradients of all parts, and return this rank's rows of the sum.

        Args:
            sums: partial sums of this rank, one for each of its :func:`order.nodes`.
            bounds: rank r has the parts from ``bounds[r]`` to ``bounds[r + 1]``.
            division: which rows each rank gets.
            like: a tensor of their dtype and device.
        """
        sent = [
            leaves[path][rows.on(rank)].reshape(-1)
            for rank in range(self.ranks)
            for leaves in sums
            for path, rows in division.items()
        ]
        sizes = [_size(division, rank) for rank in range(self.ranks)]
        total = self._tree_sum(sent, sizes, bounds, like)
        return _cut(total, division, self.rank)

    def whole_sum(
        self,
        sums: Sequence[Mapping[str, Tensor]],
        bounds: Sequence[int],
        shapes: Mapping[str, Sequence[int]],
        like: Tensor,
    ) -> dict[str, Tensor]:
        """Add up the gradients of all parts, and return the whole sum on every rank.

        The arguments are those of :meth:`rows_of_sum`, with the shapes of the leaves.
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

    def whole(self, own: Mapping[str, Tensor], division: Division) -> dict[str, Tensor]:
        """Return whole leaves from the rows that each rank has of them.

        Args:
            own: rows of this rank, all of one dtype.
            division: which rows each rank has.
        """
        if not division:
            return {}
        sizes = [_size(division, rank) for rank in range(self.ranks)]
        pieces = self.all_pieces(torch.cat([own[path].reshape(-1) for path in division]), sizes)
        by_rank = [_cut(piece, division, rank) for rank, piece in enumerate(pieces)]
        leaves = {path: torch.cat([one[path] for one in by_rank]) for path in division}
        return {path: rows.laid_out(leaves[path]) for path, rows in division.items()}

    def moved(
        self, own: Mapping[str, Tensor], source: Division, target: Division
    ) -> dict[str, Tensor]:
        """Return the rows that this rank has under another division of the same leaves.

        Args:
            own: rows of this rank, all of one dtype.
            source: which rows each rank has.
            target: which rows each rank gets.
        """
        if not target:
            return {}
        ranks, like = range(self.ranks), own[next(iter(target))]
        pairs = {path: (source[path], rows) for path, rows in target.items()}
        going = [
            [own[path][_overlap(self.rank, to, *pair)].reshape(-1) for path, pair in pairs.items()]
            for to in ranks
        ]
        coming = [
            [_elements(_overlap(start, self.rank, *pair), pair[1]) for pair in pairs.values()]
            for start in ranks
        ]
        found = like.new_empty(sum(map(sum, coming)))
        width = like.element_size()
        dist.all_to_all_single(
            _bytes(found),
            _bytes(torch.cat(list(itertools.chain.from_iterable(going)))),
            [sum(lengths) * width for lengths in coming],
            [sum(map(len, pieces)) * width for pieces in going],
            group=self.group,
        )
        pieces = torch.split(found, list(itertools.chain.from_iterable(coming)))
        return {
            path: torch.cat(pieces[index :: len(target)]).view(rows.shape_on(self.rank))
            for index, (path, rows) in enumerate(target.items())
        }

    def all_pieces(self, own: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Return the vectors of all ranks.

        Args:
            own: the vector of this rank.
            sizes: the length of each.
        """
        if self.ranks == 1:
            return [own]
        longest = max(sizes)
        if longest * self.ranks > 2 * sum(sizes):  # most of it would be padding
            return self._sent_by_each(own, sizes)
        padded = own
        if len(own) < longest:
            padded = torch.cat([own, own.new_zeros(longest - len(own))])
        found = own.new_empty(self.ranks * longest)
        dist.all_gather_into_tensor(_bytes(found), _bytes(padded), group=self.group)
        pieces = torch.split(found, longest) if longest else [found] * self.ranks
        return [piece[:size] for piece, size in zip(pieces, sizes, strict=True)]

    def _sent_by_each(self, own: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        pieces = [own.new_empty(size) for size in sizes]
        pieces[self.rank] = own.contiguous()
        for rank, piece in enumerate(pieces):
            if len(piece):
                dist.broadcast(_bytes(piece), group=self.group, group_src=rank)
        return pieces

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


def _size(division: Division, rank: int) -> int:
    """Return how many elements a rank has of all leaves."""
    return sum(math.prod(rows.shape_on(rank)) for rows in division.values())


def _cut(flat: Tensor, division: Division, rank: int) -> dict[str, Tensor]:
    shapes = {path: rows.shape_on(rank) for path, rows in division.items()}
    pieces = torch.split(flat, [math.prod(shape) for shape in shapes.values()])
    views = zip(shapes.items(), pieces, strict=True)
    return {path: piece.view(shape) for (path, shape), piece in views}


def _overlap(start: int, to: int, source: Rows, target: Rows) -> slice:
    """Return the rows that go from one rank to another, counted from the first of the sender's."""
    begin = source.bounds[start]
    first = max(begin, target.bounds[to])
    last = max(first, min(source.bounds[start + 1], target.bounds[to + 1]))
    return slice(first - begin, last - begin)


def _elements(part: slice, rows: Rows) -> int:
    return int(part.stop - part.start) * math.prod(rows.shape[1:])


def _bytes(vector: Tensor) -> Tensor:
    """Return the bytes of a vector: they are only moved, and gloo knows few dtypes."""
    return vector.contiguous().view(torch.uint8)
