"""Muon against torch bit by bit, and against the formula in double precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import functrain as ft
from functrain.errors import ConfigurationError
from functrain.optim import AdamW, Muon, groups, is_matrix

pytestmark = pytest.mark.row(13)

STEPS = 30
SHAPES = {"square": (4, 4), "tall": (7, 3), "wide": (2, 9)}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"nesterov": False},
    {"weight_decay": 0.0, "momentum": 0.8},
    {"adjust_lr_fn": "match_rms_adamw"},
    {"adjust_lr_fn": "original", "ns_steps": 3, "eps": 1.0},
    {"ns_coefficients": (3.4, -4.7, 2.0)},
]
Leaves = dict[str, Tensor]


def draw(seed: int, dtype: torch.dtype) -> Leaves:
    source = torch.Generator().manual_seed(seed)
    return {
        path: torch.randn(shape, dtype=torch.float64, generator=source).to(dtype)
        for path, shape in SHAPES.items()
    }


def lr_of(step: int) -> float:
    return 0.05 / (1 + step / 10) if step % 7 else 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("options", OPTIONS)
def test_the_kernel_equals_torch(options: dict[str, Any], dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16 and options.get("nesterov") is False:
        pytest.skip("torch 2.13 normalises the momentum itself in place, here, and so forgets it")
    params = draw(0, dtype)
    trained = {path: torch.nn.Parameter(param.clone()) for path, param in params.items()}
    theirs = torch.optim.Muon(trained.values(), **options)
    muon = Muon(**options)
    state = muon.init(params)
    for step in range(STEPS):
        grads = draw(step + 1, dtype)
        for path, param in trained.items():
            param.grad = grads[path].clone()
        theirs.param_groups[0]["lr"] = lr_of(step)
        theirs.step()
        muon.update_(grads, state, params, lr_of(step))
    for path, param in trained.items():
        assert torch.equal(params[path], param.detach()), path


def formula(muon: Muon, params: dict[str, Any]) -> dict[str, Any]:
    """The published algorithm in NumPy, with float64 iterations."""
    a, b, c = muon.ns_coefficients
    means = {path: np.zeros_like(param) for path, param in params.items()}
    for step in range(STEPS):
        for path, grad in draw(step + 1, torch.float64).items():
            means[path] = muon.momentum * means[path] + (1 - muon.momentum) * grad.numpy()
            x = means[path]
            if muon.nesterov:
                x = muon.momentum * x + (1 - muon.momentum) * grad.numpy()
            x = x / max(np.linalg.norm(x), muon.eps)
            for _ in range(muon.ns_steps):
                x = a * x + (b * (x @ x.T) + c * (x @ x.T) @ (x @ x.T)) @ x
            rows, columns = x.shape
            scale = math.sqrt(max(1, rows / columns))
            if muon.adjust_lr_fn == "match_rms_adamw":
                scale = 0.2 * math.sqrt(max(rows, columns))
            params[path] = params[path] * (1 - lr_of(step) * muon.weight_decay)
            params[path] = params[path] - lr_of(step) * scale * x
    return params


@pytest.mark.parametrize("lr", [0.02, torch.tensor(0.02)])
def test_the_step_is_not_rounded_to_the_dtype_of_the_iterations(lr: Any) -> None:
    params, muon = draw(0, torch.float32), Muon()
    by_rule, _ = muon.update(draw(1, torch.float32), muon.init(params), params, lr)
    muon.update_(draw(1, torch.float32), muon.init(params), params, 0.02)
    for path in params:
        torch.testing.assert_close(by_rule[path], params[path], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_equals_the_formula(options: dict[str, Any], kernel: bool) -> None:
    muon = Muon(**options, ns_dtype="float64")
    params = draw(0, torch.float64)
    expected = formula(muon, {path: param.numpy().copy() for path, param in params.items()})
    state = muon.init(params)
    for step in range(STEPS):
        if kernel:
            muon.update_(draw(step + 1, torch.float64), state, params, lr_of(step))
        else:
            grads = draw(step + 1, torch.float64)
            params, state = muon.update(grads, state, params, lr_of(step))
    for path, param in params.items():
        np.testing.assert_allclose(param.numpy(), expected[path], rtol=1e-10, atol=1e-12)


def test_the_step_is_near_to_orthogonal() -> None:
    muon, params = Muon(weight_decay=0.0, ns_dtype="float64"), draw(0, torch.float64)
    zeros = {path: torch.zeros_like(param) for path, param in params.items()}
    steps, _ = muon.update(params, muon.init(zeros), zeros, 1.0)
    for path, step in steps.items():
        rows, columns = step.shape
        scales = torch.linalg.svdvals(step / math.sqrt(max(1, rows / columns)))
        assert 0.6 < scales.min() <= scales.max() < 1.3, path


@pytest.mark.row(7)
def test_groups_give_the_other_leaves_to_adamw() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.LayerNorm(5), torch.nn.Linear(5, 2))
    optimizer = groups([("2.*", AdamW()), (is_matrix, Muon(0.02)), ("*", AdamW())])
    program = ft.program(model, lambda m, batch: m(batch).square().mean(), optimizer)
    state = program.init()
    assert list(state.optimizer["1"]["momentum_buffer"]) == ["0.weight"]
    first = program.eval_step(state, torch.ones(4, 3))["loss"]
    for _ in range(10):
        state, _ = program.train_step(state, torch.ones(4, 3))
    assert program.eval_step(state, torch.ones(4, 3))["loss"] < first


@pytest.mark.parametrize(
    "param", [torch.zeros(3), torch.zeros(2, 2, 2), torch.zeros(2, 2, dtype=torch.complex64)]
)
def test_what_is_no_matrix_is_refused_by_name(param: Tensor) -> None:
    assert not is_matrix("conv.weight", param)
    with pytest.raises(ConfigurationError, match=r"'conv.weight' has shape .*is_matrix"):
        Muon().init({"conv.weight": param})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ns_steps": 0}, "Muon: ns_steps: expected an integer >= 1, got 0"),
        ({"ns_steps": 100}, "Muon: ns_steps: expected a number below 100"),
        ({"ns_coefficients": (1.0, 2.0)}, "Muon: ns_coefficients: expected three finite numbers"),
        ({"ns_dtype": "int8"}, "Muon: ns_dtype: expected 'bfloat16'"),
        ({"adjust_lr_fn": "x"}, "Muon: adjust_lr_fn: expected "),
    ],
)
def test_bad_values(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Muon(**options)
