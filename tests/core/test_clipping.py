"""Norms and clipping compared with torch's own."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import functrain as ft
from functrain.core import clipping
from functrain.core.clipping import block_norm, block_size, sums_of_blocks
from functrain.errors import ConfigurationError

reported_norm = functools.partial(clipping.torch_norm, clip_norm=None)
SHAPES = st.lists(st.integers(1, 40), min_size=0, max_size=3)


def gradients(dtype: torch.dtype, scale: float = 1.0, large: bool = False) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (5,), (), (2, 3, 2), (300, 300) if large else (1,)]
    return [
        (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
        for shape in shapes
    ]


@pytest.mark.row(6)
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_norms_are_torchs(dtype: torch.dtype, large: bool) -> None:
    grads = gradients(dtype, large=large)
    expected = nn.utils.get_total_norm(grads)
    assert torch.equal(clipping.global_norm(grads), expected)
    torch.testing.assert_close(reported_norm(grads), expected)
    one_by_one = clipping.global_norm(grads, foreach=False)
    torch.testing.assert_close(one_by_one, expected)


@pytest.mark.parametrize("norm", [clipping.global_norm, reported_norm])
@pytest.mark.parametrize("half_at", [0, 3])
def test_gradients_of_several_dtypes_have_torchs_norm(norm: Any, half_at: int) -> None:
    grads = gradients(torch.float32)
    grads[half_at] = gradients(torch.bfloat16)[half_at]
    torch.testing.assert_close(norm(grads), nn.utils.get_total_norm(grads))


@pytest.mark.parametrize("norm", [clipping.global_norm, reported_norm])
def test_the_norm_is_where_the_first_gradient_is(norm: Any) -> None:
    first, *others = gradients(torch.float32)
    assert norm([first.to("meta"), *others]).is_meta
    assert not norm([first, *others]).is_meta


@pytest.mark.row(6)
@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize(("max_norm", "scale"), [(0.1, 1.0), (1e6, 1.0), (1e-6, 1e-7)])
def test_clipping_by_norm_is_torchs(max_norm: float, scale: float, foreach: bool) -> None:
    grads = gradients(torch.float32, scale, large=True)
    params = [nn.Parameter(torch.zeros_like(grad)) for grad in grads]
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad.clone()
    nn.utils.clip_grad_norm_(params, max_norm)
    clipped = clipping.clip_by_norm(grads, max_norm, clipping.global_norm(grads), foreach)
    assert all(torch.equal(a, b.grad) for a, b in zip(clipped, params, strict=True))


@pytest.mark.row(6)
@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("half_at", [0, 2])  # 2 has no dimensions: dtypes are promoted otherwise
def test_clipping_gradients_of_several_dtypes_is_torchs(half_at: int, foreach: bool) -> None:
    grads = gradients(torch.float32)
    grads[half_at] = gradients(torch.bfloat16)[half_at]
    params = [nn.Parameter(torch.zeros_like(grad)) for grad in grads]
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad.clone()
    norm = nn.utils.clip_grad_norm_(params, 0.1)
    clipped = clipping.clip_by_norm(grads, 0.1, norm, foreach)
    assert all(a.dtype is b.dtype for a, b in zip(clipped, params, strict=True))
    assert all(torch.equal(a, b.grad) for a, b in zip(clipped, params, strict=True))


@pytest.mark.row(6)
@pytest.mark.parametrize("foreach", [True, False])
def test_clipping_by_value_is_torchs(foreach: bool) -> None:
    grads = gradients(torch.float32)
    clipped = clipping.clip_by_value(grads, 0.3, foreach)
    expected = [grad.clamp(-0.3, 0.3) for grad in grads]
    assert all(torch.equal(a, b) for a, b in zip(clipped, expected, strict=True))


class Rotation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.phase = nn.Parameter(torch.ones(2, dtype=torch.complex64))
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.phase * x).abs() * self.scale


def test_complex_parameters_are_not_clipped_by_value() -> None:
    def made(**options: Any) -> ft.Program:
        loss = lambda model, x: model(x).sum()  # noqa: E731
        return ft.program(Rotation(), loss, ft.optim.SGD(lr=0.1), **options)

    with pytest.raises(
        ConfigurationError, match=r"clip_value: .*\['phase'\] are complex.*clip_norm"
    ):
        made(clip_value=1.0)
    for options in ({"clip_norm": 0.1}, {"clip_value": 1.0, "trainable": "scale"}):
        program = made(**options)
        _, metrics = program.train_step(program.init(), torch.ones(2))
        assert metrics["loss"].isfinite()


def block_sums(rows: torch.Tensor, block: int) -> torch.Tensor:
    return sums_of_blocks([rows], [block])[0]


def leaf_of(shape: list[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
def test_the_norm_by_blocks_is_torchs_up_to_rounding(dtype: torch.dtype) -> None:
    grads = [leaf_of(shape, dtype) for shape in ([3, 4], [5], [], [2, 3, 70], [300, 300], [0, 4])]
    expected = nn.utils.get_total_norm(grads)
    wide = [grad.to(torch.promote_types(grad.dtype, torch.float64)) for grad in grads]
    norm = block_norm(grads)
    assert norm.dtype is expected.dtype
    torch.testing.assert_close(norm, nn.utils.get_total_norm(wide).to(norm.dtype))


@given(SHAPES, st.data())
def test_rows_in_pieces_have_the_sums_of_the_whole(shape: list[int], data: st.DataObject) -> None:
    leaf = leaf_of([max(1, shape[0] if shape else 1) * 64, *shape[1:]])
    block = block_size(leaf.shape)
    rows = block // math.prod(leaf.shape[1:])
    cuts = data.draw(st.lists(st.integers(0, len(leaf) // rows), max_size=3).map(sorted))
    bounds = [0, *(cut * rows for cut in cuts), len(leaf)]
    pieces = [block_sums(leaf[a:b], block) for a, b in itertools.pairwise(bounds)]
    assert torch.equal(torch.cat(pieces), block_sums(leaf, block))


def test_neither_threads_nor_the_number_of_blocks_change_the_sum_of_one() -> None:
    many = leaf_of([8, 1 << 17])
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
def test_the_norm_by_blocks_shows_what_is_not_finite(bad: float) -> None:
    grads = [torch.ones(100), torch.tensor([1.0, bad])]
    assert not math.isfinite(block_norm(grads))
