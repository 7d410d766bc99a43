"""Schedule-Free against its authors' package, and what evaluation uses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import functrain as ft
from functrain.errors import ConfigurationError
from functrain.optim import Optimizer, ScheduleFreeAdamW, ScheduleFreeSGD

pytestmark = [pytest.mark.row(13), pytest.mark.row(14)]

STEPS = 100
PLAIN: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.1},
    {"warmup_steps": 30},
    {"r": 1.5, "weight_lr_power": 0.0},
    {"warmup_steps": 20, "r": 0.5, "weight_lr_power": 1.0, "weight_decay": 0.2},
]
CASES = [
    *((ScheduleFreeSGD, "SGDScheduleFree", options) for options in PLAIN),
    (ScheduleFreeSGD, "SGDScheduleFree", {"momentum": 0.6}),
    *((ScheduleFreeAdamW, "AdamWScheduleFree", options) for options in PLAIN),
    (ScheduleFreeAdamW, "AdamWScheduleFree", {"betas": (0.6, 0.95), "eps": 1e-3}),
]
Leaves = dict[str, Tensor]


def draw(seed: int) -> Leaves:
    source = torch.Generator().manual_seed(seed)
    shapes = {"weight": (5, 3), "bias": (3,), "scale": ()}
    return {
        path: torch.randn(shape, dtype=torch.float64, generator=source)
        for path, shape in shapes.items()
    }


def lr_of(step: int) -> float:
    return 0.05 / (1 + step / 10) if step % 7 else 0.0


def run_theirs(name: str, options: dict[str, Any]) -> tuple[Leaves, Leaves]:
    cls = getattr(pytest.importorskip("schedulefree"), name)
    trained = {path: torch.nn.Parameter(param) for path, param in draw(0).items()}
    optimizer = cls(list(trained.values()), lr=0.05, **options)
    optimizer.train()
    for step in range(STEPS):
        for path, param in trained.items():
            param.grad = draw(step + 1)[path]
        optimizer.param_groups[0]["lr"] = lr_of(step)
        optimizer.step()
    training = {path: param.detach().clone() for path, param in trained.items()}
    optimizer.eval()
    return training, {path: param.detach() for path, param in trained.items()}


def run_ours(optimizer: Optimizer, kernel: bool) -> tuple[Leaves, Leaves]:
    params = draw(0)
    state = optimizer.init(params)
    for step in range(STEPS):
        if kernel:
            optimizer.update_(draw(step + 1), state, params, lr_of(step))
        else:
            params, state = optimizer.update(draw(step + 1), state, params, lr_of(step))
    return params, optimizer.eval_params(state, params)


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize(("cls", "name", "options"), CASES)
def test_equals_the_package(cls: Any, name: str, options: dict[str, Any], kernel: bool) -> None:
    for found, expected in zip(
        run_ours(cls(**options), kernel), run_theirs(name, options), strict=True
    ):
        for path in expected:
            torch.testing.assert_close(found[path], expected[path], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("cls", [ScheduleFreeSGD, ScheduleFreeAdamW])
def test_eval_step_uses_the_average(cls: Any) -> None:
    torch.manual_seed(0)
    program = ft.program(
        torch.nn.Linear(3, 1), lambda model, batch: model(batch).square().mean(), cls(lr=0.1)
    )
    state = program.init(seed=0)
    batch = torch.randn(8, 3)
    for _ in range(5):
        state, _ = program.train_step(state, batch)
    optimizer = program.recipe.optimizer
    average = optimizer.eval_params(state.optimizer, state.params)
    with torch.no_grad():
        expected = torch.nn.functional.linear(batch, average["weight"], average["bias"])
    found = program.eval_step(state, batch)["loss"]
    torch.testing.assert_close(found, expected.square().mean())
    assert not torch.allclose(average["weight"], state.params["weight"])


def test_before_the_first_update_the_average_is_the_parameters() -> None:
    params = draw(0)
    sgd = ScheduleFreeSGD()
    average = sgd.eval_params(sgd.init(params), params)
    assert all(torch.equal(average[path], params[path]) for path in params)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (
            ScheduleFreeSGD,
            {"momentum": 0.0},
            r"ScheduleFreeSGD: momentum: expected a number above 0",
        ),
        (
            ScheduleFreeSGD,
            {"momentum": 1.0},
            r"ScheduleFreeSGD: momentum: expected a number in \[0, 1\)",
        ),
        (
            ScheduleFreeAdamW,
            {"betas": (0, 0.9)},
            r"ScheduleFreeAdamW: betas\[0\]: expected a number above 0",
        ),
        (ScheduleFreeAdamW, {"warmup_steps": 1.5}, "warmup_steps: expected an integer"),
    ],
)
def test_bad_values(cls: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        cls(**options)
