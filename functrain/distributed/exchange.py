"""Messages between ranks: each sends to each other one what that one needs, and no more.

Everything is sent point to point, without rings or trees of ranks, and only bytes are moved. So
every message has one sender, one receiver and a size that both know before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs
import torch
import torch.distributed as dist
from torch import Tensor

from functrain.distributed.group import World
from functrain.distributed.placement import Division, Rows

# torch 2.13 warns of the old name; versions before it have no other.
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


@attrs.frozen(eq=False)
class Pending:
    """Messages on their way, and the tensors that they read and write."""

    works: list[dist.Work]
    tensors: Sequence[Tensor]

    def wait(self) -> None:
        """Wait until the tensors may be read and written again."""
        while self.works:  # gloo would wait for another message if it were asked twice
            self.works.pop(0).wait()


@attrs.frozen(eq=False)
class Exchange:
    """The messages of a step."""

    world: World

    @property
    def rank(self) -> int:
        """The rank of this process."""
        return self.world.rank

    @property
    def ranks(self) -> int:
        """How many there are."""
        return self.world.size

    def start(
        self, going: Sequence[Sequence[Tensor]], coming: Sequence[Sequence[Tensor]]
    ) -> Pending:
        """Start to send tensors to other ranks, and to receive theirs."""
        received, sent = [], []
        for distance in range(1, self.ranks):  # every rank begins with another one
            source, target = (
                (self.rank - distance) % self.ranks,
                (self.rank + distance) % self.ranks,
            )
            received += [(_bytes(each), source) for each in coming[source] if each.numel()]
            sent += [(_bytes(each), target) for each in going[target] if each.numel()]
        if not received and not sent:
            return Pending([], [])
        group, device = self.world.group, (received or sent)[0][0].device
        assert group is not None, "one process has no messages"
        if device.type == "cpu":  # what torch does below, without its checks of each argument
            works = [group.recv([each], source, 0) for each, source in received]
            works += [group.send([each], target, 0) for each, target in sent]
        else:
            ops = [dist.P2POp(dist.irecv, each, group=group, group_peer=r) for each, r in received]
            ops += [dist.P2POp(dist.isend, each, group=group, group_peer=r) for each, r in sent]
            works = dist.batch_isend_irecv(ops)
        return Pending(works, [each for each, _ in received + sent])

    def all_pieces(self, own: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Return the vectors of all ranks."""
        found = list(torch.split(own.new_empty(sum(sizes)), list(sizes)))
        found[self.rank] = own
        self.start([[own]] * self.ranks, [[piece] for piece in found]).wait()
        return found

    def whole(self, own: Mapping[str, Tensor], division: Division) -> dict[str, Tensor]:
        """Return whole leaves from the rows that each rank has of them."""
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
        """Return the rows that this rank has under another division of the same leaves."""
        pairs = {path: (source[path], rows) for path, rows in target.items()}
        going = [
            [own[path][_overlap(self.rank, to, *pair)].contiguous() for path, pair in pairs.items()]
            for to in range(self.ranks)
        ]
        coming = [
            [
                own[path].new_empty(_elements(_overlap(start, self.rank, *pair), pair[1]))
                for path, pair in pairs.items()
            ]
            for start in range(self.ranks)
        ]
        self.start(going, coming).wait()
        coming[self.rank] = [piece.view(-1) for piece in going[self.rank]]
        return {
            path: torch.cat(pieces).view(target[path].shape_on(self.rank))
            for path, pieces in zip(target, zip(*coming, strict=True), strict=True)
        }


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


def _bytes(tensor: Tensor) -> Tensor:
    """Return the bytes of a contiguous tensor: they are only moved, and gloo knows few dtypes."""
    return tensor.view(-1).view(torch.uint8)
