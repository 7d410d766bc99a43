"""The results of all parts of a step, on every rank, and how they are combined.

They take two rounds of messages: the few numbers by which the sums of the gradients are divided,
then everything else, among it the divided sums. Losses and metrics are combined in the order of the
parts; see ``buffers.py`` for buffers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.core import clipping
from functrain.core.accumulation import PartSums
from functrain.core.gradients import scaled
from functrain.core.loss import LossOutput
from functrain.core.state import Tensors
from functrain.distributed.buckets import Layout, order_of_blocks
from functrain.distributed.exchange import Exchange
from functrain.distributed.group import World
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
            for one, weight in zip(found.loss_outputs, found.weights, strict=True)
        ]
        sizes = [_HEAD * count for count in self.counts]
        every = self.exchange.all_pieces(_table_of(rows, self.like), sizes)
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
            divisor = scaled(torch.stack(weights).sum(), scale)
            shares = [share / divisor.to(share.dtype) for share in shares]
        pairs = zip(shares, self.layout.buckets, strict=True)
        shares = [share.to(bucket.dtype) for share, bucket in pairs]
        names = [name for name, dtype in facts.metrics if dtype is not None]
        metrics = _table_of(
            [[one.metrics[n] for n in names] for one in found.loss_outputs], self.like
        )
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
            _buffers_of(before, changed, buffers, len(heads)) if changed else [],
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


def _table_of(rows: Sequence[Sequence[Tensor]], like: Tensor) -> Tensor:
    """Return scalars as one vector of float64, which holds narrower dtypes exactly."""
    found = [one.detach().double() for row in rows for one in row]
    return torch.stack(found) if found else like.new_empty(0, dtype=torch.float64)


def _buffers_of(
    before: Tensors, changed: Sequence[str], parts: Tensor, count: int
) -> list[Tensors]:
    """Return the changed buffers after each part of the step, from their bytes, part after part."""
    lengths = [before[path].nbytes for path in changed]
    return [
        {
            path: piece.clone().view(before[path].dtype).view(before[path].shape)
            for path, piece in zip(changed, torch.split(part, lengths), strict=True)
        }
        for part in parts.view(count, -1)
    ]


def loss_outputs_of(
    world: World, own: Sequence[LossOutput], facts: Facts, table: Tensor
) -> tuple[list[LossOutput], list[Tensor]]:
    """Return loss output and weight of each part of the step, from a table with a row for each."""
    dtypes = [(name, dtype) for name, dtype in facts.dtypes if dtype is not None]
    values: list[dict[str, Any]] = [
        {name: value.to(dtype) for (name, dtype), value in zip(dtypes, row, strict=True)}
        for row in table
    ]
    objects = [name for name, dtype in facts.metrics if dtype is None]
    if objects:
        mine = [{name: one.metrics[name] for name in objects} for one in own]
        every = itertools.chain.from_iterable(world.gathered(mine))
        values = [{**scalars, **others} for scalars, others in zip(values, every, strict=True)]
    names = [name for name, _ in facts.metrics]
    loss_outputs = [
        LossOutput(one["loss"], None, {name: one[name] for name in names}) for one in values
    ]
    return loss_outputs, [one["weight"] for one in values]
