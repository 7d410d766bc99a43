"""The sum of the gradients of all parts: each rank adds up its share of the elements.

A partial sum goes, piece by piece, to the ranks that add up these elements, and each of them adds
what it receives in the order of the tree. That is the traffic of a reduce-scatter, without its
order of addition, which depends on the number of ranks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import attrs
from torch import Tensor

from functrain.core.accumulation import Node, halves, nodes
from functrain.core.state import Tensors
from functrain.distributed.buckets import Bucket
from functrain.distributed.exchange import Exchange, Pending

T = TypeVar("T")


@attrs.frozen(eq=False)
class _Sent:
    """A bucket on its way: the vectors of this rank's nodes, and what comes of each node."""

    pending: Pending
    vectors: Sequence[Tensor]
    received: Sequence[Tensor]


@attrs.frozen(eq=False)
class Sums:
    """The gradients of a step, on their way between ranks.

    Attributes:
        buckets: in the order in which they are sent.
        bounds: rank r has the parts from ``bounds[r]`` to ``bounds[r + 1]``.
        like: a tensor on the device of the gradients.
    """

    exchange: Exchange
    buckets: Sequence[Bucket]
    bounds: Sequence[int]
    like: Tensor
    _sent: list[_Sent] = attrs.field(factory=list, init=False)

    def send(self, sums: Sequence[Tensors]) -> None:
        """Start to send the sums of this rank's parts, bucket by bucket."""
        for bucket in self.buckets:
            self._sent.append(self._started(bucket, sums))

    def own(self) -> list[Tensor]:
        """Return the elements of each bucket that this rank adds up, once they have arrived."""
        return [self._added(sent) for sent in self._sent]

    def vector(self, number: int) -> Tensor:
        """Return a vector to gather a bucket in: one whose elements are not needed any more."""
        bucket, sent = self.buckets[number], self._sent[number]
        if sent.vectors and bucket.summed is bucket.dtype:
            return sent.vectors[0]
        return self.like.new_empty(sum(bucket.sizes), dtype=bucket.dtype)

    def _started(self, bucket: Bucket, sums: Sequence[Tensors]) -> _Sent:
        rank = self.exchange.rank
        vectors = [bucket.vector(leaves, self.like) for leaves in sums]
        going = zip(*(bucket.by_rank(one) for one in vectors), strict=True)
        every = list(map(list, going)) if vectors else [[]] * self.exchange.ranks
        coming = [
            [self.like.new_empty(bucket.sizes[rank], dtype=bucket.summed) for _ in nodes]
            for nodes in self._nodes()
        ]
        pending = self.exchange.start(every, coming)
        coming[rank] = every[rank]
        return _Sent(pending, vectors, list(itertools.chain.from_iterable(coming)))

    def _added(self, sent: _Sent) -> Tensor:
        sent.pending.wait()
        each = itertools.chain.from_iterable(self._nodes())
        by_node = dict(zip(each, sent.received, strict=True))
        return tree_sum(self.bounds[-1], by_node, Tensor.add_)

    def _nodes(self) -> list[list[Node]]:
        parts = self.bounds[-1]
        return [nodes(parts, *share) for share in itertools.pairwise(self.bounds)]


def tree_sum(parts: int, sums: Mapping[Node, T], add: Callable[[T, T], T]) -> T:
    """Return the sum of all parts from those of subtrees that cover all once; see :func:`nodes`.

    Example:
        >>> tree_sum(4, {(0, 2): "ab", (2, 3): "c", (3, 4): "d"}, lambda x, y: f"({x}+{y})")
        '(ab+(c+d))'
    """

    def total(node: Node) -> T:
        if node in sums:
            return sums[node]
        left, right = halves(node)
        return add(total(left), total(right))

    return total((0, parts))
