"""The norm by blocks: torch's up to rounding, and the same for any division of the rows."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from functrain.core.clipping import block_norm, block_size, block_sums

SHAPES = st.lists(st.integers(1, 40), min_size=0, max_size=3)


def made(shape: list[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
def test_it_is_torchs_norm(dtype: torch.dtype) -> None:
    grads = [made(shape, dtype) for shape in ([3, 4], [5], [], [2, 3, 70], [300, 300], [0, 4])]
    expected = nn.utils.get_total_norm(grads)
    wide = [grad.to(torch.promote_types(grad.dtype, torch.float64)) for grad in grads]
    norm = block_norm(grads)
    assert norm.dtype is expected.dtype
    torch.testing.assert_close(norm, nn.utils.get_total_norm(wide).to(norm.dtype))


@given(SHAPES, st.data())
def test_rows_in_pieces_have_the_sums_of_the_whole(shape: list[int], data: st.DataObject) -> None:
    leaf = made([max(1, shape[0] if shape else 1) * 64, *shape[1:]])
    block = block_size(leaf.shape)
    rows = block // math.prod(leaf.shape[1:])
    cuts = data.draw(st.lists(st.integers(0, len(leaf) // rows), max_size=3).map(sorted))
    bounds = [0, *(cut * rows for cut in cuts), len(leaf)]
    pieces = [block_sums(leaf[a:b], block) for a, b in itertools.pairwise(bounds)]
    assert torch.equal(torch.cat(pieces), block_sums(leaf, block))


def test_neither_threads_nor_the_number_of_blocks_change_the_sum_of_one() -> None:
    many = made([8, 1 << 17])
    block = block_size(many.shape)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 4):
            torch.set_num_threads(threads)
            found += [block_sums(many, block)[:1], block_sums(many[:1], block)]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_shows(bad: float) -> None:
    grads = [torch.ones(100), torch.tensor([1.0, bad])]
    assert not math.isfinite(block_norm(grads))
