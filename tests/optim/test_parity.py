"""Rule and kernel against torch.optim over 100 steps, for every option."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from functrain.optim import SGD, Adam, AdamW, Optimizer, RAdam

STEPS = 100
SHAPES = {"weight": (5, 3), "wide": (7, 9), "bias": (3,), "scale": (), "kernel": (2, 3, 2, 2)}

SGD_CASES: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.1},
    {"maximize": True},
    {"momentum": 0.9},
    {"momentum": 0.9, "weight_decay": 0.1},
    {"momentum": 0.9, "dampening": 0.3},
    {"momentum": 0.9, "dampening": -0.1, "weight_decay": 0.1, "maximize": True},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1, "maximize": True},
]
ADAM_CASES: list[dict[str, Any]] = [
    {},
    {"betas": (0.5, 0.9), "eps": 1e-3},
    {"betas": (0.0, 0.99)},
    {"weight_decay": 0.1},
    {"weight_decay": 0.0},
    {"amsgrad": True},
    {"maximize": True},
    {"amsgrad": True, "maximize": True, "weight_decay": 0.2, "eps": 1e-4},
]
RADAM_CASES: list[dict[str, Any]] = [
    {},
    {"betas": (0.5, 0.9), "eps": 1e-3},
    {"betas": (0.9, 0.5)},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "decoupled_weight_decay": True},
    {"maximize": True, "weight_decay": 0.1},
    {"maximize": True, "weight_decay": 0.1, "decoupled_weight_decay": True},
]
CASES = [
    *((SGD, torch.optim.SGD, {"fused": True}, options) for options in SGD_CASES),
    *((Adam, torch.optim.Adam, {"fused": True}, options) for options in ADAM_CASES),
    *((AdamW, torch.optim.AdamW, {"fused": True}, options) for options in ADAM_CASES),
    *((RAdam, torch.optim.RAdam, {"foreach": True}, options) for options in RADAM_CASES),
]


def lr_of(step: int) -> float:
    return 0.05 / (1 + step / 10) if step % 7 else 0.0


def make(dtype: torch.dtype) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    source = torch.Generator().manual_seed(0)

    def draw() -> dict[str, Tensor]:
        return {
            path: torch.randn(shape, dtype=torch.float64, generator=source).to(dtype)
            for path, shape in SHAPES.items()
        }

    return draw(), [draw() for _ in range(STEPS)]


def run_torch(
    cls: Any, options: dict[str, Any], params: dict[str, Tensor], grads: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    trained = {path: torch.nn.Parameter(param.clone()) for path, param in params.items()}
    optimizer = cls(trained.values(), lr=0.05, **options)
    for step, grad in enumerate(grads):
        for path, param in trained.items():
            param.grad = grad[path].clone()
        optimizer.param_groups[0]["lr"] = lr_of(step)
        optimizer.step()
    return {path: param.detach() for path, param in trained.items()}


def run_kernel(
    optimizer: Optimizer, params: dict[str, Tensor], grads: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    params = {path: param.clone() for path, param in params.items()}
    state = optimizer.init(params)
    for step, grad in enumerate(grads):
        optimizer.update_(grad, state, params, lr_of(step))
    return params


def run_rule(
    optimizer: Optimizer, params: dict[str, Tensor], grads: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    state = optimizer.init(params)
    for step, grad in enumerate(grads):
        params, state = optimizer.update(grad, state, params, lr_of(step))
    return params


def relative_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    return max(
        float((found[path] - expected[path]).norm() / expected[path].norm()) for path in expected
    )


@pytest.mark.row(13)
@pytest.mark.sweep("ours", "dtype")
@pytest.mark.parametrize(("ours", "theirs", "form", "options"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_kernel_is_bitwise_the_form_it_calls(
    ours: Any, theirs: Any, form: dict[str, Any], options: dict[str, Any], dtype: torch.dtype
) -> None:
    params, grads = make(dtype)
    if ours is SGD and dtype == torch.bfloat16:
        form = {"foreach": True}  # torch's fused form does not train such parameters on the CPU
    found = run_kernel(ours(lr=0.05, **options), params, grads)
    expected = run_torch(theirs, {**form, **options}, params, grads)
    if ours is RAdam and dtype == torch.float64:  # torch takes its powers in Python
        assert relative_error(found, expected) < 1e-12
        return
    for path in params:
        assert torch.equal(found[path], expected[path]), path


@pytest.mark.row(13)
@pytest.mark.parametrize("options", [one for one in SGD_CASES if "dampening" in one], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_dampening_on_an_accelerator_spares_the_first_update(
    options: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, grads = make(dtype)
    expected = run_torch(torch.optim.SGD, {"foreach": True, **options}, params, grads)
    monkeypatch.setattr(Tensor, "is_cpu", False)
    found = run_kernel(SGD(lr=0.05, **options), params, grads)
    assert relative_error(found, expected) < (1e-6 if dtype is torch.float32 else 1e-14)


def reference_radam(
    params: dict[str, Tensor],
    grads: list[dict[str, Tensor]],
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> dict[str, Tensor]:
    """The authors' RAdam.step with degenerated_to_sgd=False, one parameter at a time."""
    beta1, beta2 = betas
    result = {}
    for path, start in params.items():
        p, m, v = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
        for index, grad in enumerate(grads):
            lr, step = lr_of(index), index + 1
            v.mul_(beta2).addcmul_(grad[path], grad[path], value=1 - beta2)
            m.mul_(beta1).add_(grad[path], alpha=1 - beta1)
            beta2_t = beta2**step
            n_max = 2 / (1 - beta2) - 1
            n = n_max - 2 * step * beta2_t / (1 - beta2_t)
            if n > 5:
                ratio = (n - 4) / (n_max - 4) * (n - 2) / n * n_max / (n_max - 2)
                step_size = ((1 - beta2_t) * ratio) ** 0.5 / (1 - beta1**step)
                if weight_decay:
                    p.add_(p, alpha=-weight_decay * lr)
                p.addcdiv_(m, v.sqrt().add_(eps), value=-step_size * lr)
        result[path] = p
    return result


@pytest.mark.row(13)
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9), (0.9, 0.5)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("run", [run_rule, run_kernel])
def test_radam_without_sgd_fallback_equals_the_authors_code(
    run: Any, betas: tuple[float, float], weight_decay: float
) -> None:
    params, grads = make(torch.float64)
    radam = RAdam(
        lr=0.05,
        betas=betas,
        weight_decay=weight_decay,
        decoupled_weight_decay=True,
        degenerated_to_sgd=False,
    )
    expected = reference_radam(params, grads, betas, 1e-8, weight_decay)
    assert relative_error(run(radam, params, grads), expected) < 1e-12


@pytest.mark.parametrize("run", [run_rule, run_kernel])
@pytest.mark.parametrize("decoupled", [True, False])
def test_radam_without_sgd_fallback_waits_five_steps(run: Any, decoupled: bool) -> None:
    params, grads = make(torch.float32)
    radam = RAdam(weight_decay=0.1, decoupled_weight_decay=decoupled, degenerated_to_sgd=False)
    waited, moved = run(radam, params, grads[:5]), run(radam, params, grads[:6])
    assert all(torch.equal(waited[path], params[path]) for path in params)
    assert all(not torch.equal(moved[path], params[path]) for path in params)


@pytest.mark.parametrize("optimizer", [SGD(momentum=0.9), Adam(), AdamW(), RAdam()], ids=repr)
def test_a_tensor_lr_is_as_good_as_a_float(optimizer: Optimizer) -> None:
    params, grads = make(torch.float64)
    for run in (optimizer.update, None):
        results = []
        for lr in (0.05, torch.tensor(0.05, dtype=torch.float64)):
            own = {path: param.clone() for path, param in params.items()}
            state = optimizer.init(own)
            if run is None:
                optimizer.update_(grads[0], state, own, lr)
            else:
                own, _ = run(grads[0], state, own, lr)
            results.append(own)
        assert relative_error(*results) < 1e-15
