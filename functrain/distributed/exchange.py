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

from functrain.distributed.placement import rows

Shapes = Mapping[str, Sequence[int]]


@attrs.frozen(eq=False)
class Pending:
    """Messages on their way.

    Attributes:
        works: of torch.
        tensors: that they read and write.
    """

    works: list[dist.Work]
    tensors: Sequence[Tensor]

    def wait(self) -> None:
        """Wait until the tensors may be read and written again."""
        while self.works:  # gloo would wait for another message if it were asked twice
            self.works.pop(0).wait()


@attrs.frozen(eq=False)
class Exchange:
    """The messages of a step.

    Attributes:
        rank: of this process.
        ranks: how many there are.
        group: their process group; ``None`` for one process.
    """

    rank: int
    ranks: int
    group: dist.ProcessGroup | None

    def start(
        self, going: Sequence[Sequence[Tensor]], coming: Sequence[Sequence[Tensor]]
    ) -> Pending:
        """Start to send tensors to other ranks, and to receive theirs.

        Args:
            going: contiguous tensors for each rank; what is for this one is ignored.
            coming: contiguous tensors that those of each rank are written to.
        """
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
        group, device = self.group, (received or sent)[0][0].device
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
        """Return the vectors of all ranks.

        Args:
            own: the vector of this rank.
            sizes: the length of each.
        """
        found = list(torch.split(own.new_empty(sum(sizes)), list(sizes)))
        found[self.rank] = own
        self.start([[own]] * self.ranks, [[piece] for piece in found]).wait()
        return found

    def whole(self, own: Mapping[str, Tensor], shapes: Shapes) -> dict[str, Tensor]:
        """Return whole leaves from the rows that each rank has of them.

        Args:
            own: rows of this rank, all of one dtype.
            shapes: of the whole leaves.
        """
        if not shapes:
            return {}
        sizes = [sum(map(math.prod, self.shapes(shapes, rank))) for rank in range(self.ranks)]
        pieces = self.all_pieces(torch.cat([own[path].reshape(-1) for path in shapes]), sizes)
        by_rank = [self._cut(piece, shapes, rank) for rank, piece in enumerate(pieces)]
        leaves = zip(*by_rank, strict=True)
        return {path: torch.cat(parts) for path, parts in zip(shapes, leaves, strict=True)}

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


def _bytes(tensor: Tensor) -> Tensor:
    """Return the bytes of a contiguous tensor: they are only moved, and gloo knows few dtypes."""
    return tensor.view(-1).view(torch.uint8)
