"""The layout of messages: every element has one rank, and no block of the norm two."""

from __future__ import annotations

import itertools
import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from functrain.core.clipping import block_size, sums_of_blocks
from functrain.distributed.buckets import Layout, order_of_blocks

SHAPES = st.lists(st.lists(st.integers(0, 70), max_size=3), min_size=1, max_size=6)


def leaves_of(shapes: list[list[int]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {str(at): torch.randn(shape, generator=generator) for at, shape in enumerate(shapes)}


def rows_cut(leaf: torch.Tensor, ranks: int) -> tuple[int, ...]:
    """Return cuts by rows at multiples of 64 of them."""
    width = math.prod(leaf.shape[1:])
    rows = [min(len(leaf), rank * 64) * width for rank in range(ranks)]
    return (*rows, leaf.numel())


@given(SHAPES, st.integers(1, 4), st.sampled_from([1, 1 << 10, 1 << 20]))
def test_vectors_have_every_element_once_and_are_cut_between_blocks(
    shapes: list[list[int]], ranks: int, full: int
) -> None:
    leaves = leaves_of(shapes)
    cuts = {path: rows_cut(leaf, ranks) for path, leaf in leaves.items() if leaf.ndim == 2}
    layout = Layout.of(leaves, cuts, ranks, full)
    paths = [path for bucket in layout.buckets for path in bucket.leaves]
    assert sorted(paths) == sorted(leaves)
    sums: list[torch.Tensor] = []
    for rank, bucket in itertools.product(range(ranks), layout.buckets):
        share = bucket.by_rank(bucket.vector(leaves, torch.empty(0)))[rank]
        for (path, cut), piece in zip(bucket.cuts.items(), bucket.pieces(share, rank), strict=True):
            start, stop = cut[rank : rank + 2]
            assert torch.equal(piece, leaves[path].reshape(-1)[start:stop])
            assert start % block_size(leaves[path].shape) == 0 or start == stop
            sums += sums_of_blocks([piece], [block_size(leaves[path].shape)])
    for bucket in layout.buckets:
        if bucket.gathered:
            views = bucket.views(bucket.vector(leaves, torch.empty(0)))
            assert all(torch.equal(views[path], leaves[path]) for path in bucket.leaves)
    present = frozenset(list(leaves)[::2])
    found = torch.cat(sums)[order_of_blocks(layout, present, torch.device("cpu"))]
    held = [leaves[p] for p in leaves if p in present]
    whole = sums_of_blocks(held, [block_size(leaf.shape) for leaf in held])
    assert torch.equal(found, torch.cat(whole))


def test_ranks_add_up_nearly_as_much() -> None:
    leaves = leaves_of([[128, 64], [64], [300, 64], [10, 64], [10]])
    (bucket,) = Layout.of(leaves, {}, 4).buckets
    assert max(bucket.sizes) - min(bucket.sizes) <= 3 * 64
    assert sum(bucket.sizes) == sum(leaf.numel() for leaf in leaves.values())


def test_a_leaf_without_a_gradient_adds_nothing() -> None:
    leaves = leaves_of([[3], [4]])
    (bucket,) = Layout.of(leaves, {}, 1).buckets
    vector = bucket.vector({"0": leaves["0"]}, torch.empty(0))
    assert torch.equal(torch.signbit(bucket.views(vector)["1"]), torch.ones(4, dtype=torch.bool))


def test_the_last_leaf_is_sent_first_and_a_full_bucket_is_closed() -> None:
    leaves = leaves_of([[64], [64], [64]])
    buckets = Layout.of(leaves, {}, 2, full=300).buckets
    assert [list(bucket.leaves) for bucket in buckets] == [["2", "1"], ["0"]]
