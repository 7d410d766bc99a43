"""Cases that optax does not cover: half precision, zeros, and single units."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from functrain.optim import SGD
from functrain.optim.wrappers import AdaptiveGradClip, ClipByBlockRms

pytestmark = pytest.mark.row(13)


def regrad(optimizer: Any, grad: Tensor, param: Tensor) -> Tensor:
    grads, _ = optimizer.regrad({"w": grad}, {}, {"w": param})
    return grads["w"]


def test_a_float16_gradient_whose_norm_overflows_is_clipped() -> None:
    grad = torch.full((100, 100), 1000.0, dtype=torch.float16)
    param = torch.ones(100, 100, dtype=torch.float16)
    clipped = regrad(ClipByBlockRms(SGD(), 0.5), grad, param)
    assert torch.equal(clipped, torch.full_like(grad, 0.5))
    clipped = regrad(AdaptiveGradClip(SGD(), 0.25), grad.flatten(), param.flatten())
    assert torch.equal(clipped, torch.full_like(grad, 0.25).flatten())


def test_each_unit_is_clipped_by_its_own_weights() -> None:
    param = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    grad = torch.tensor([[0.6, 0.8], [0.6, 0.8], [0.6, 0.8]])
    clipped = regrad(AdaptiveGradClip(SGD(), 0.1, eps=0.01), grad, param)
    expected = torch.tensor([[0.3, 0.4], [0.03, 0.04], [0.0006, 0.0008]])
    torch.testing.assert_close(clipped, expected)


def test_a_unit_of_a_column_is_one_weight() -> None:
    param, grad = torch.tensor([[1.0], [10.0]]), torch.tensor([[1.0], [1.0]])
    clipped = regrad(AdaptiveGradClip(SGD(), 0.1), grad, param)
    torch.testing.assert_close(clipped, torch.tensor([[0.1], [1.0]]))


@pytest.mark.parametrize("shape", [(), (3,), (3, 2), (3, 2, 4), (2, 3, 1, 2, 2)])
def test_small_and_zero_gradients_are_not_changed(shape: tuple[int, ...]) -> None:
    param = torch.ones(shape)
    for optimizer in (AdaptiveGradClip(SGD(), 0.1), ClipByBlockRms(SGD(), 0.1)):
        for value in (0.0, 0.05):
            grad = torch.full(shape, value)
            assert torch.equal(regrad(optimizer, grad, param), grad)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bfloat16], ids=str)
def test_other_dtypes_are_kept(dtype: torch.dtype) -> None:
    grad = torch.full((2, 2), 3.0).to(dtype)
    clipped = regrad(ClipByBlockRms(SGD(), 1.5), grad, grad)
    assert torch.equal(clipped, torch.full((2, 2), 1.5).to(dtype))
    clipped = regrad(AdaptiveGradClip(SGD(), 0.5), grad, grad)
    assert torch.equal(clipped, torch.full((2, 2), 1.5).to(dtype))
