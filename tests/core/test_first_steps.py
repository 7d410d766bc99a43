"""First steps and evaluations of a program show what later ones have to copy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def program(loss: Any, **options: Any) -> ft.Program:
    torch.manual_seed(0)
    return ft.program(nn.Linear(3, 1), loss, ft.optim.SGD(0.1), **options)


def squared(model: nn.Module, batch: Any) -> Tensor:
    return model(batch["x"]).square().mean()


def normalizes(model: nn.Module, batch: Any) -> Tensor:
    batch["x"].sub_(batch["x"].mean())
    return squared(model, batch)


def pops(model: nn.Module, batch: Any) -> Tensor:
    return model(batch.pop("x")).square().mean()


def differentiates(model: nn.Module, batch: Any) -> Tensor:
    slope = torch.autograd.grad(model(batch["x"].requires_grad_()).sum(), batch["x"])[0]
    return squared(model, batch) + slope.sum()


@pytest.mark.parametrize("loss", [normalizes, pops, differentiates])
@pytest.mark.parametrize("options", [{}, {"accumulate": 2}])
def test_a_loss_that_writes_to_its_batch_gets_copies_for_ever(loss: Any, options: Any) -> None:
    made, batch = program(loss, **options), {"x": X.clone()}
    state = made.init()
    for _ in range(6):
        state, _ = made.train_step(state, batch)
        made.eval_step(state, batch)
    assert torch.equal(batch["x"], X)
    assert not batch["x"].requires_grad


class Rescaling(nn.Linear):
    """Writes to its weights when it evaluates, as RWKV does."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            with torch.no_grad():
                self.weight.mul_(0.5)
        return super().forward(x)


@pytest.mark.parametrize("wrap", [lambda made: made, ft.donated], ids=["plain", "donated"])
def test_a_forward_that_writes_to_weights_in_evaluation_gets_copies(wrap: Any) -> None:
    made = wrap(ft.program(Rescaling(), squared, ft.optim.SGD(0.1)))
    batch = {"x": X}
    for number in range(3):
        state = made.init()
        for _ in range(number):
            state, _ = made.train_step(state, batch)
        before = ft.copy(state)
        found = {made.eval_step(state, batch)["loss"].item() for _ in range(5)}
        assert len(found) == 1
        assert ft.tree.equal(state, before)
    with made.evaluating(state) as model:
        assert squared(model, batch).item() in found
    assert ft.tree.equal(state, before)


def test_what_an_evaluation_keeps_of_the_weights_stays() -> None:
    kept: list[Any] = []

    def evaluate(model: Any, batch: Any) -> Tensor:
        kept.append((model.weight.detach(), model.weight.detach().clone()))
        return squared(model, batch)

    made = ft.donated(program(squared, evaluate=evaluate))
    state = made.init()
    for _ in range(6):
        made.eval_step(state, {"x": X})
        state, _ = made.train_step(state, {"x": X})
    assert all(torch.equal(one, copy) for one, copy in kept)


def test_a_buffer_that_a_forward_takes_from_its_batch_is_a_copy() -> None:
    class Remembers(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 1)
            self.register_buffer("last", torch.zeros(4, 3))

        def forward(self, x: Tensor) -> Tensor:
            self.last = x
            return super().forward(x)

    made, batch = ft.program(Remembers(), squared, ft.optim.SGD(0.1)), {"x": X.clone()}
    state = made.init()
    for _ in range(5):
        state, _ = made.train_step(state, batch)
    batch["x"].zero_()
    assert torch.equal(state.buffers["last"], X)
