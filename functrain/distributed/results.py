"""The results of all parts of a step, on every rank.

They take two rounds of messages: the few numbers by which the sums of the gradients are divided,
then everything else, among it the divided sums.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.core import clipping
from functrain.core.part_sums import PartSums, divisor_of
from functrain.core.state import Tensors
from functrain.distributed.buckets import Layout, order_of_blocks
from functrain.distributed.exchange import Exchange
from functrain.distributed.gathering import buffers_of, table_of
from functrain.distributed.step_facts import Facts
from functrain.distributed.sums import Sums

_HEAD = 3
_NUMBER = 8  # bytes


@attrs.frozen(eq=False)
class Results:
    """The results of all parts of a step, as every rank knows them.

    Attributes:
        grads: this rank's rows of the mean of the gradients, in no order.
        table: loss, weight, and metrics that are tensors, a row for each part.
        buffers: those that have changed and kept their form, after each part.
    """

    grads: Tensors
    norm: Tensor
    table: Tensor
    buffers: list[Tensors]


@attrs.frozen(eq=False)
class Gathering:
    """Gathers the results of the parts of a step."""

    exchange: Exchange
    layout: Layout
    bounds: Sequence[int]
    like: Tensor

    @property
    def counts(self) -> list[int]:
        """How many parts each rank has."""
        return [stop - start for start, stop in itertools.pairwise(self.bounds)]

    def heads(self, found: PartSums, norm: Tensor | None) -> Tensor:
        """Return norm, loss and weight of each part of the step; several parts have no norm yet."""
        norm = self.like.new_zeros(()) if norm is None else norm
        rows = [
            [norm, one.value, weight]
            for one, weight in zip(found.outcomes, found.weights, strict=True)
        ]
        sizes = [_HEAD * count for count in self.counts]
        every = self.exchange.all_pieces(table_of(rows, self.like), sizes)
        return torch.cat(every).view(-1, _HEAD)

    def results(
        self,
        found: PartSums,
        sums: Sums,
        facts: Facts,
        heads: Tensor,
        before: Tensors,
        scale: Tensor | None,
    ) -> Results:
        """Return the results of all parts."""
        alone = len(heads) == 1
        shares = sums.own()
        if not alone:
            weights = [row.to(facts.dtypes[1][1]) for row in heads[:, 2]]
            divisor = divisor_of(weights, scale)
            for share in shares:
                share.div_(divisor.to(share.dtype))
        names = [name for name, dtype in facts.metrics if dtype is not None]
        metrics = table_of([[one.metrics[n] for n in names] for one in found.outcomes], self.like)
        changed = facts.rewritten(before)
        blocks = metrics[:0] if alone else self._blocks(shares)
        after = [tree.to_bytes(one[path]) for one in found.buffers for path in changed]
        own = torch.cat([_bytes(metrics), _bytes(blocks), *after])
        width = sum(before[path].nbytes for path in changed)
        sizes = [
            [_NUMBER * len(names) * count, 0 if alone else _NUMBER * sum(each), width * count]
            for count, each in zip(self.counts, self.layout.blocks, strict=True)
        ]
        every, grads = self._gathered(own, list(map(sum, sizes)), sums, shares)
        pieces = [torch.split(one, size) for one, size in zip(every, sizes, strict=True)]
        numbers, blocks, buffers = map(torch.cat, zip(*pieces, strict=True))
        table = numbers.view(torch.float64).view(len(heads), len(names))
        return Results(
            grads,
            self._norm(heads, blocks.view(torch.float64), facts, grads),
            torch.cat([heads[:, 1:], table], 1),
            buffers_of(before, changed, buffers, len(heads)) if changed else [],
        )

    def _blocks(self, shares: Sequence[Tensor]) -> Tensor:
        rank = self.exchange.rank
        pairs = zip(self.layout.buckets, shares, strict=True)
        pieces = [piece for bucket, share in pairs for piece in bucket.pieces(share, rank)]
        return torch.cat(clipping.sums_of_blocks(pieces, self.layout.widths))

    def _norm(self, heads: Tensor, blocks: Tensor, facts: Facts, grads: Tensors) -> Tensor:
        dtype = clipping.norm_dtype(grads[path] for path in facts.present)
        if len(heads) == 1:
            return heads[0, 0].to(dtype)
        places = order_of_blocks(self.layout, facts.present, blocks.device)
        return clipping.norm_of_sums([blocks[places]], dtype)

    def _gathered(
        self, own: Tensor, sizes: Sequence[int], sums: Sums, shares: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensors]:
        """Return the bytes of every rank, and the gradients."""
        rank, grads = self.exchange.rank, {}
        every = [own.new_empty(size) for size in sizes]
        every[rank] = own
        coming = [[one] for one in every]
        for number, (bucket, share) in enumerate(zip(self.layout.buckets, shares, strict=True)):
            if not bucket.gathered:
                grads.update(bucket.rows(share, rank))
                continue
            vector = sums.vector(number)
            by_rank = bucket.by_rank(vector)
            by_rank[rank].copy_(share)
            for messages, part in zip(coming, by_rank, strict=True):
                messages.append(part)
            grads.update(bucket.views(vector))
        self.exchange.start([coming[rank]] * self.exchange.ranks, coming).wait()
        return every, grads


def _bytes(vector: Tensor) -> Tensor:
    return vector.view(torch.uint8)
