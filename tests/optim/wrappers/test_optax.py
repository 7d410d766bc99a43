"""optax as the oracle for the transformations it has too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optax_runs import Leaves, assert_equal, from_jax, optax, run_optax, run_ours, same
from torch import Tensor

from functrain.optim import SGD, Adam, Optimizer, wrappers

pytestmark = pytest.mark.row(13)

STEPS = 30
SHAPES = {"weight": (5, 3), "bias": (3,), "scale": (), "kernel": (2, 3, 2, 4)}


def draw(seed: int) -> Leaves:
    """Leaves of which some are small: so that some are clipped and others not."""
    source = torch.Generator().manual_seed(seed)
    return {
        path: torch.randn(shape, dtype=torch.float64, generator=source)
        * 10 ** (2 * torch.rand((), generator=source) - 1)
        for path, shape in SHAPES.items()
    }


def outputs_last(leaf: Tensor) -> Tensor:
    return leaf.movedim(0, -1) if leaf.ndim > 1 else leaf


def outputs_first(leaf: Tensor) -> Tensor:
    return leaf.movedim(-1, 0) if leaf.ndim > 1 else leaf


def rate(step: int) -> float:
    return 0.1


def assert_same(optimizer: Optimizer, transformation: Any, turned: bool = False) -> None:
    there, back = (outputs_last, outputs_first) if turned else (same, same)
    params = run_optax(transformation, draw, STEPS, turn=there)
    for found, _ in run_ours(optimizer, draw, STEPS, rate):
        assert_equal(found, from_jax(params, back))


@pytest.mark.parametrize("clipping", [0.02, 0.5])
def test_adaptive_grad_clip_of_layers_with_outputs_last(clipping: float) -> None:
    theirs = optax.chain(optax.adaptive_grad_clip(clipping, eps=0.3), optax.sgd(0.1))
    assert_same(wrappers.AdaptiveGradClip(SGD(), clipping, eps=0.3), theirs, turned=True)


@pytest.mark.parametrize("threshold", [0.3, 2.0])
def test_clip_by_block_rms(threshold: float) -> None:
    theirs = optax.chain(optax.clip_by_block_rms(threshold), optax.sgd(0.1))
    assert_same(wrappers.ClipByBlockRms(SGD(), threshold), theirs)


@pytest.mark.sweep("reset")
@pytest.mark.parametrize(("period", "size"), [(4, 0.8), (1, 0.5), (7, 0.0)])
@pytest.mark.parametrize("reset", [False, True])
def test_lookahead(period: int, size: float, reset: bool) -> None:
    theirs = optax.lookahead(optax.adam(0.1), period, size, reset_state=reset)
    expected = run_optax(theirs, draw, STEPS, optax.LookaheadParams.init_synced)
    for found, evaluated in run_ours(
        wrappers.Lookahead(Adam(), period, size, reset), draw, STEPS, rate
    ):
        assert_equal(found, from_jax(expected.fast))
        assert_equal(evaluated, from_jax(expected.slow))
