"""The rules under vmap, torch.compile and differentiation."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from functrain import optim

OPTIMIZERS = [
    optim.SGD(weight_decay=0.1),
    optim.SGD(momentum=0.9, dampening=0.1, weight_decay=0.1),
    optim.SGD(momentum=0.9, nesterov=True, weight_decay=0.1),
    optim.Adam(amsgrad=True, weight_decay=0.1),
    optim.AdamW(weight_decay=0.1),
    optim.RAdam(weight_decay=0.1),
    optim.RAdam(weight_decay=0.1, decoupled_weight_decay=True, degenerated_to_sgd=False),
    optim.NAdam(weight_decay=0.1),
    optim.NAdam(weight_decay=0.1, decoupled_weight_decay=True),
    optim.RMSprop(weight_decay=0.1),
    optim.RMSprop(momentum=0.9, centered=True, weight_decay=0.1),
    optim.Adagrad(weight_decay=0.1, lr_decay=0.1),
    optim.Adadelta(weight_decay=0.1),
    optim.Adamax(weight_decay=0.1),
    optim.Lion(weight_decay=0.1),
    optim.LAMB(weight_decay=0.1),
    optim.Adafactor(weight_decay=0.1),
    optim.ScheduleFreeSGD(weight_decay=0.1),
    optim.ScheduleFreeAdamW(weight_decay=0.1, warmup_steps=2, r=0.5),
    optim.Muon(weight_decay=0.1, ns_dtype=None),
]
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)


def start(dtype: torch.dtype, optimizer: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    params = {"w": torch.randn(4, 3, dtype=dtype), "s": torch.randn((), dtype=dtype)}
    return {"w": params["w"]} if isinstance(optimizer, optim.Muon) else params


def grads_of(params: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of a quartic, written out; half of it is exactly 0, as behind a dead unit."""
    alive = torch.tensor([[1.0, 0.0, 1.0]] * 4, dtype=params["w"].dtype)
    masks = {"w": alive, "s": torch.ones((), dtype=params["w"].dtype)}
    return {path: masks[path] * param**3 for path, param in params.items()}


def train(
    optimizer: optim.Optimizer, params: dict[str, Tensor], lr: Any, steps: int
) -> dict[str, Tensor]:
    state = optimizer.init(params)
    for _ in range(steps):
        params, state = optimizer.update(grads_of(params), state, params, lr)
    return params


@pytest.mark.row(55)
@every_optimizer
def test_vmap_over_hyperparameters_equals_a_loop(optimizer: optim.Optimizer) -> None:
    params = start(torch.float64, optimizer)
    lrs = torch.tensor([0.0, 0.01, 0.1], dtype=torch.float64)
    decays = torch.tensor([0.3, 0.0, 0.1], dtype=torch.float64)

    def member(lr: Tensor, weight_decay: Tensor) -> dict[str, Tensor]:
        return train(attrs.evolve(optimizer, weight_decay=weight_decay), params, lr, 8)  # type: ignore[misc]

    found = torch.func.vmap(member)(lrs, decays)
    for i, (lr, decay) in enumerate(zip(lrs.tolist(), decays.tolist(), strict=True)):
        expected = train(attrs.evolve(optimizer, weight_decay=decay), params, lr, 8)  # type: ignore[misc]
        for path in params:
            torch.testing.assert_close(found[path][i], expected[path], rtol=1e-12, atol=1e-14)


@every_optimizer
def test_vmap_over_a_float32_lr_keeps_float32(optimizer: optim.Optimizer) -> None:
    params = start(torch.float32, optimizer)
    found = torch.func.vmap(lambda lr: train(optimizer, params, lr, 2))(torch.tensor([0.1, 0.2]))
    assert {param.dtype for param in found.values()} == {torch.float32}


@pytest.mark.row(50)
@pytest.mark.sweep
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_compiles_as_one_graph(optimizer: optim.Optimizer) -> None:
    torch._dynamo.reset()  # the limit of recompilations is one for all optimizers
    params = start(torch.float32, optimizer)
    state = optimizer.init(params)
    compiled = torch.compile(optimizer.update, fullgraph=True, backend="aot_eager")
    for lr in (torch.tensor(0.1), torch.tensor(0.2)):
        found, found_state = compiled(grads_of(params), state, params, lr)
        params, state = optimizer.update(grads_of(params), state, params, lr)
        for path in params:
            torch.testing.assert_close(found[path], params[path], rtol=1e-6, atol=1e-7)
        assert torch.equal(found_state["step"], state["step"])


@pytest.mark.row(56)
@every_optimizer
@pytest.mark.parametrize("name", ["lr", "weight_decay"])
def test_gradient_through_training(optimizer: optim.Optimizer, name: str) -> None:
    params = start(torch.float64, optimizer)
    steps = 8 if isinstance(optimizer, optim.RAdam) else 3

    def loss(value: Any) -> Tensor:
        chosen = optimizer if name == "lr" else attrs.evolve(optimizer, weight_decay=value)  # type: ignore[misc]
        trained = train(chosen, params, value if name == "lr" else 0.05, steps)
        return sum((param**2).sum() for param in trained.values())  # type: ignore[return-value]

    value = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(loss(value), value)
    width = 1e-6
    expected = (loss(0.05 + width) - loss(0.05 - width)) / (2 * width)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    functional = torch.func.grad(loss)(value.detach())
    torch.testing.assert_close(functional, found, rtol=1e-12, atol=0)


@pytest.mark.row(56)
@pytest.mark.parametrize("cls", [optim.Adam, optim.AdamW, optim.RAdam])
def test_gradient_to_betas_and_eps(cls: Any) -> None:
    params = start(torch.float64, cls)

    def loss(beta1: Any, beta2: Any, eps: Any) -> Tensor:
        return train(cls(betas=(beta1, beta2), eps=eps), params, 0.05, 8)["w"].square().sum()

    at = [torch.tensor(x, dtype=torch.float64) for x in (0.8, 0.95, 0.1)]
    assert torch.autograd.gradcheck(loss, [value.requires_grad_() for value in at])
