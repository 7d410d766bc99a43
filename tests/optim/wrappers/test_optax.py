"""optax as the oracle for the transformations it has too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from functrain.optim import SGD, Adam, Optimizer
from functrain.optim.wrappers import (
    AdaptiveGradClip,
    Centralize,
    ClipByBlockRms,
    Lookahead,
    SkipLargeUpdates,
)

pytestmark = pytest.mark.row(13)

optax = pytest.importorskip("optax")
jax = pytest.importorskip("jax")

STEPS = 30
SHAPES = {"weight": (5, 3), "bias": (3,), "scale": (), "kernel": (2, 3, 2, 4)}

Leaves = dict[str, Tensor]
Turn = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def draw(seed: int) -> Leaves:
    """Leaves of which some are small: so that some are clipped and others not."""
    source = torch.Generator().manual_seed(seed)
    return {
        path: torch.randn(shape, dtype=torch.float64, generator=source)
        * 10 ** (2 * torch.rand((), generator=source) - 1)
        for path, shape in SHAPES.items()
    }


def same(leaf: Tensor) -> Tensor:
    return leaf


def outputs_last(leaf: Tensor) -> Tensor:
    return leaf.movedim(0, -1) if leaf.ndim > 1 else leaf


def outputs_first(leaf: Tensor) -> Tensor:
    return leaf.movedim(-1, 0) if leaf.ndim > 1 else leaf


def to_jax(leaves: Leaves, turn: Turn) -> dict[str, Any]:
    return {path: jax.numpy.asarray(turn(leaf).numpy()) for path, leaf in leaves.items()}


def from_jax(leaves: Any, turn: Turn = same) -> Leaves:
    return {path: turn(torch.from_dlpack(leaf)) for path, leaf in leaves.items()}


def run_optax(transformation: Any, turned: bool = False) -> Leaves:
    there, back = (outputs_last, outputs_first) if turned else (same, same)
    params = to_jax(draw(0), there)
    state = transformation.init(params)
    update = jax.jit(transformation.update)
    for step in range(STEPS):
        updates, state = update(to_jax(draw(step + 1), there), state, params)
        params = optax.apply_updates(params, updates)
    return from_jax(params, back)


def run_rule(optimizer: Optimizer) -> tuple[Leaves, Leaves]:
    params = draw(0)
    state = optimizer.init(params)
    for step in range(STEPS):
        params, state = optimizer.update(draw(step + 1), state, params, 0.1)
    return params, optimizer.eval_params(state, params)


def run_kernel(optimizer: Optimizer) -> tuple[Leaves, Leaves]:
    params = draw(0)
    state = optimizer.init(params)
    for step in range(STEPS):
        optimizer.update_(draw(step + 1), state, params, 0.1)
    return params, optimizer.eval_params(state, params)


both = pytest.mark.parametrize("run", [run_rule, run_kernel])


def assert_equal(found: Leaves, expected: Leaves) -> None:
    assert found.keys() == expected.keys()
    for path in expected:
        error = float((found[path] - expected[path]).norm() / expected[path].norm())
        assert error < 1e-12, path


@both
def test_centralize(run: Any) -> None:
    theirs = optax.chain(optax.centralize(), optax.adam(0.1))
    found, _ = run(Centralize(Adam()))
    assert_equal(found, run_optax(theirs))


@both
@pytest.mark.parametrize("clipping", [0.02, 0.5])
def test_adaptive_grad_clip_of_layers_with_outputs_last(run: Any, clipping: float) -> None:
    theirs = optax.chain(optax.adaptive_grad_clip(clipping, eps=0.3), optax.sgd(0.1))
    found, _ = run(AdaptiveGradClip(SGD(), clipping, eps=0.3))
    assert_equal(found, run_optax(theirs, turned=True))


@both
@pytest.mark.parametrize("threshold", [0.3, 2.0])
def test_clip_by_block_rms(run: Any, threshold: float) -> None:
    theirs = optax.chain(optax.clip_by_block_rms(threshold), optax.sgd(0.1))
    found, _ = run(ClipByBlockRms(SGD(), threshold))
    assert_equal(found, run_optax(theirs))


def run_optax_lookahead(fast: Any, *options: Any, **named: Any) -> tuple[Leaves, Leaves]:
    transformation = optax.lookahead(fast, *options, **named)
    params = optax.LookaheadParams.init_synced(to_jax(draw(0), same))
    state = transformation.init(params)
    update = jax.jit(transformation.update)
    for step in range(STEPS):
        updates, state = update(to_jax(draw(step + 1), same), state, params)
        params = optax.apply_updates(params, updates)
    return from_jax(params.fast), from_jax(params.slow)


@both
@pytest.mark.parametrize(("period", "size"), [(1, 0.5), (4, 0.8), (7, 0.0)])
@pytest.mark.parametrize("reset", [False, True])
def test_lookahead(run: Any, period: int, size: float, reset: bool) -> None:
    fast, slow = run_optax_lookahead(optax.adam(0.1), period, size, reset_state=reset)
    found, evaluated = run(Lookahead(Adam(), period, size, reset))
    assert_equal(found, fast)
    assert_equal(evaluated, slow)


@both
def test_skip_large_updates(run: Any) -> None:
    norms = sorted(
        float(torch.cat([g.flatten() for g in draw(s + 1).values()]).norm()) for s in range(STEPS)
    )
    bound = (norms[14] + norms[15]) / 2
    found, _ = run(SkipLargeUpdates(Adam(), bound))
    steps = optax.MultiSteps(
        optax.adam(0.1),
        every_k_schedule=1,
        should_skip_update_fn=lambda *given: optax.skip_large_updates(*given, bound**2),
    )
    assert_equal(found, run_optax(steps))
