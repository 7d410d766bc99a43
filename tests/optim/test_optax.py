"""optax as the oracle for optimizers that torch does not have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from functrain.optim import LAMB, AdamW, Lion, Optimizer, ScheduleFreeAdamW, ScheduleFreeSGD

pytestmark = pytest.mark.row(13)

optax = pytest.importorskip("optax")
jax = pytest.importorskip("jax")

STEPS = 100
SHAPES = {"weight": (5, 3), "bias": (3,), "scale": (), "kernel": (2, 3, 2, 2)}

Leaves = dict[str, Tensor]


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def draw(seed: int) -> Leaves:
    source = torch.Generator().manual_seed(seed)
    return {
        path: torch.randn(shape, dtype=torch.float64, generator=source)
        for path, shape in SHAPES.items()
    }


def lr_of(step: int) -> float:
    return 0.05 / (1 + step / 10) if step % 7 else 0.0


def lr_of_optax(step: Any) -> Any:
    return jax.numpy.where(step % 7 != 0, 0.05 / (1 + step.astype("float64") / 10), 0.0)


def to_jax(leaves: Leaves) -> dict[str, Any]:
    return {path: jax.numpy.asarray(leaf.numpy()) for path, leaf in leaves.items()}


def from_jax(leaves: Any) -> Leaves:
    return {path: torch.from_dlpack(leaf) for path, leaf in leaves.items()}


def run_optax(transformation: Any, average: Any = None) -> Leaves:
    params = to_jax(draw(0))
    state = transformation.init(params)
    update = jax.jit(transformation.update)
    for step in range(STEPS):
        updates, state = update(to_jax(draw(step + 1)), state, params)
        params = optax.apply_updates(params, updates)
    return from_jax(params if average is None else average(state, params))


def run_rule(optimizer: Optimizer, rate: Any = lr_of) -> Leaves:
    params = draw(0)
    state = optimizer.init(params)
    for step in range(STEPS):
        params, state = optimizer.update(draw(step + 1), state, params, rate(step))
    return optimizer.eval_params(state, params)


def run_kernel(optimizer: Optimizer, rate: Any = lr_of) -> Leaves:
    params = draw(0)
    state = optimizer.init(params)
    for step in range(STEPS):
        optimizer.update_(draw(step + 1), state, params, rate(step))
    return optimizer.eval_params(state, params)


both = pytest.mark.parametrize("run", [run_rule, run_kernel])


def assert_equal(found: Leaves, expected: Leaves) -> None:
    for path in expected:
        error = float((found[path] - expected[path]).norm() / expected[path].norm())
        assert error < 1e-12, path


@both
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"b1": 0.5, "b2": 0.8},
        {"weight_decay": 0.1},
        {"b1": 0.95, "b2": 0.98, "weight_decay": 1},
    ],
)
def test_lion(run: Any, options: dict[str, Any]) -> None:
    betas = (options.get("b1", 0.9), options.get("b2", 0.99))
    decay = options.get("weight_decay", 0.0)
    found = run(Lion(betas=betas, weight_decay=decay))
    assert_equal(found, run_optax(optax.lion(lr_of_optax, *betas, weight_decay=decay)))


@both
@pytest.mark.parametrize(
    "options",
    [{}, {"eps": 1e-3}, {"weight_decay": 0.1}, {"betas": (0.5, 0.9), "weight_decay": 0.3}],
)
def test_lamb(run: Any, options: dict[str, Any]) -> None:
    b1, b2 = options.get("betas", (0.9, 0.999))
    theirs = {name: value for name, value in options.items() if name != "betas"}
    found = run(LAMB(**options))
    assert_equal(found, run_optax(optax.lamb(lr_of_optax, b1, b2, **theirs)))


@both
def test_lamb_takes_a_plain_step_where_a_norm_is_zero(run: Any) -> None:
    params = {"zero": torch.zeros(3, dtype=torch.float64)}
    grads = {"zero": torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)}
    lamb = LAMB(eps=0.0)
    if run is run_rule:
        params, _ = lamb.update(grads, lamb.init(params), params, 0.1)
    else:
        lamb.update_(grads, lamb.init(params), params, 0.1)
    torch.testing.assert_close(params["zero"], -0.1 * grads["zero"].sign())


@both
def test_adamw_which_torch_has_too(run: Any) -> None:
    found = run(AdamW(weight_decay=0.1))
    assert_equal(found, run_optax(optax.adamw(lr_of_optax, weight_decay=0.1)))


def constant(step: int) -> float:
    return 0.02


@both
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_schedule_free_adamw(run: Any, decay: float) -> None:
    adamw = optax.chain(
        optax.scale_by_rms(0.99, 1e-8, eps_in_sqrt=False, bias_correction=True),
        optax.add_decayed_weights(decay),
        optax.scale_by_learning_rate(0.02),
    )
    theirs = optax.contrib.schedule_free(adamw, learning_rate=0.02, b1=0.9)
    expected = run_optax(theirs, optax.contrib.schedule_free_eval_params)
    ours = ScheduleFreeAdamW(betas=(0.9, 0.99), weight_decay=decay)
    assert_equal(run(ours, constant), expected)


@both
def test_schedule_free_sgd(run: Any) -> None:
    theirs = optax.contrib.schedule_free(optax.sgd(0.02), learning_rate=0.02, b1=0.9)
    expected = run_optax(theirs, optax.contrib.schedule_free_eval_params)
    assert_equal(run(ScheduleFreeSGD(), constant), expected)
