"""The same steps by a transformation of optax, and by the rule and the kernel of an optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from functrain.optim import Optimizer

optax = pytest.importorskip("optax")
jax = pytest.importorskip("jax")

Leaves = dict[str, Tensor]
Draw = Callable[[int], Leaves]
Turn = Callable[[Tensor], Tensor]


def same(leaf: Tensor) -> Tensor:
    return leaf


def to_jax(leaves: Leaves, turn: Turn = same) -> dict[str, Any]:
    return {path: jax.numpy.asarray(turn(leaf).numpy()) for path, leaf in leaves.items()}


def from_jax(leaves: Any, turn: Turn = same) -> Leaves:
    return {path: turn(torch.from_dlpack(leaf)) for path, leaf in leaves.items()}


@jax.enable_x64(True)
def run_optax(
    transformation: Any,
    draw: Draw,
    steps: int,
    start: Callable[[Any], Any] = lambda params: params,
    turn: Turn = same,
    result: Callable[[Any, Any], Any] = lambda state, params: params,
) -> Any:
    """Return the parameters after some steps in double precision, or another result."""
    params = start(to_jax(draw(0), turn))
    state = transformation.init(params)
    update = jax.jit(transformation.update)
    for step in range(steps):
        updates, state = update(to_jax(draw(step + 1), turn), state, params)
        params = optax.apply_updates(params, updates)
    return result(state, params)


def run_ours(
    optimizer: Optimizer, draw: Draw, steps: int, lr: Callable[[int], float]
) -> list[tuple[Leaves, Leaves]]:
    """Return the parameters and their averages, by the rule and by the kernel."""
    params, own = draw(0), draw(0)
    state, own_state = optimizer.init(params), optimizer.init(own)
    for step in range(steps):
        params, state = optimizer.update(draw(step + 1), state, params, lr(step))
        optimizer.update_(draw(step + 1), own_state, own, lr(step))
    return [(p, optimizer.eval_params(s, p)) for p, s in ((params, state), (own, own_state))]


def assert_equal(found: Leaves, expected: Leaves) -> None:
    assert found.keys() == expected.keys()
    for path in expected:
        error = float((found[path] - expected[path]).norm() / expected[path].norm())
        assert error < 1e-12, path
