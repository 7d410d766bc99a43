"""optax as the oracle for optimizers that torch does not have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optax_runs import Leaves, assert_equal, from_jax, jax, optax, run_optax, run_ours

from functrain.optim import LAMB, AdamW, Lion, Optimizer, ScheduleFreeAdamW, ScheduleFreeSGD

pytestmark = pytest.mark.row(13)

STEPS = 100
SHAPES = {"weight": (5, 3), "bias": (3,), "scale": (), "kernel": (2, 3, 2, 2)}


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


def assert_same(
    optimizer: Optimizer, transformation: Any, rate: Any = lr_of, **options: Any
) -> None:
    expected = from_jax(run_optax(transformation, draw, STEPS, **options))
    for _, found in run_ours(optimizer, draw, STEPS, rate):
        assert_equal(found, expected)


@pytest.mark.sweep
@pytest.mark.parametrize(
    "options",
    [
        {"b1": 0.95, "b2": 0.98, "weight_decay": 1},
        {},
        {"b1": 0.5, "b2": 0.8},
        {"weight_decay": 0.1},
    ],
)
def test_lion(options: dict[str, Any]) -> None:
    betas = (options.get("b1", 0.9), options.get("b2", 0.99))
    decay = options.get("weight_decay", 0.0)
    theirs = optax.lion(lr_of_optax, *betas, weight_decay=decay)
    assert_same(Lion(betas=betas, weight_decay=decay), theirs)


@pytest.mark.sweep
@pytest.mark.parametrize(
    "options",
    [{"betas": (0.5, 0.9), "weight_decay": 0.3}, {}, {"eps": 1e-3}, {"weight_decay": 0.1}],
)
def test_lamb(options: dict[str, Any]) -> None:
    b1, b2 = options.get("betas", (0.9, 0.999))
    theirs = {name: value for name, value in options.items() if name != "betas"}
    assert_same(LAMB(**options), optax.lamb(lr_of_optax, b1, b2, **theirs))


def test_lamb_takes_a_plain_step_where_a_norm_is_zero() -> None:
    params = {"zero": torch.zeros(3, dtype=torch.float64)}
    grads = {"zero": torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)}
    lamb = LAMB(eps=0.0)
    after, _ = lamb.update(grads, lamb.init(params), params, 0.1)
    lamb.update_(grads, lamb.init(params), params, 0.1)
    for found in (after, params):
        torch.testing.assert_close(found["zero"], -0.1 * grads["zero"].sign())


def test_adamw_which_torch_has_too() -> None:
    assert_same(AdamW(weight_decay=0.1), optax.adamw(lr_of_optax, weight_decay=0.1))


def constant(step: int) -> float:
    return 0.02


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_schedule_free_adamw(decay: float) -> None:
    adamw = optax.chain(
        optax.scale_by_rms(0.99, 1e-8, eps_in_sqrt=False, bias_correction=True),
        optax.add_decayed_weights(decay),
        optax.scale_by_learning_rate(0.02),
    )
    theirs = optax.contrib.schedule_free(adamw, learning_rate=0.02, b1=0.9)
    ours = ScheduleFreeAdamW(betas=(0.9, 0.99), weight_decay=decay)
    assert_same(ours, theirs, constant, result=optax.contrib.schedule_free_eval_params)


def test_schedule_free_sgd() -> None:
    theirs = optax.contrib.schedule_free(optax.sgd(0.02), learning_rate=0.02, b1=0.9)
    assert_same(ScheduleFreeSGD(), theirs, constant, result=optax.contrib.schedule_free_eval_params)
