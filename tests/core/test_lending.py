"""Lend a module with the weights of a state, to losses of other steps and of its own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from models import mlp
from torch import Tensor, nn

import functrain as ft
from functrain import errors, tree

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def squared(model: nn.Module, batch: Any) -> Tensor:
    return model(batch).square().mean()


def follows(model: nn.Module, batch: Any) -> Tensor:
    x, teacher = batch
    return (model(x) - teacher(x).detach()).square().mean()


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4, bias=False)
        self.norm = nn.BatchNorm1d(4)
        self.rnn = nn.LSTM(4, 4, batch_first=True)
        self.other = nn.Linear(4, 4, bias=False)
        self.other.weight = self.one.weight
        self.kept = [self.one]

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.kept[0](x))
        return self.other(self.rnn(x[:, None])[0][:, 0])


@pytest.fixture
def program() -> ft.Program:
    torch.manual_seed(0)
    return ft.program(Tied(), squared, ft.optim.SGD(lr=0.1), ema=0.5)


def test_it_computes_what_the_program_computes(program: ft.Program) -> None:
    state, _ = program.train_step(program.init(), X)
    weights: Any
    for weights in ("params", "ema"):
        with program.evaluating(state, weights) as bound:
            expected = bound(X)
        with program.module(state, weights) as lent:
            assert not lent.training
            assert tree.equal(lent(X).detach(), expected)
            assert lent.one.weight is lent.other.weight  # type: ignore[union-attr]
            assert lent.kept[0] is lent.one  # type: ignore[index]
    with program.module(program.init()) as lent:
        assert lent(X).requires_grad is False


def test_a_step_of_the_same_program_leaves_a_lent_module_as_it_is() -> None:
    torch.manual_seed(0)
    program = ft.program(mlp(), follows, ft.optim.SGD(lr=0.1), ema=0.9)
    alike = mlp_state = program.init()
    x = torch.randn(4, *_input_shape(program))
    with program.module(alike, "ema") as teacher:
        before = teacher(x)
        for _ in range(3):
            mlp_state, _ = program.train_step(mlp_state, (x + 1, teacher))
            assert tree.equal(teacher(x), before)
    with program.module(alike, "ema") as outer, program.module(mlp_state) as inner:
        assert tree.equal(outer(x), before)
        assert not tree.equal(inner(x), before)


def _input_shape(program: ft.Program) -> tuple[int, ...]:
    weight = next(iter(program.init().params.values()))
    return (weight.shape[1],)


def test_gradients_on_request_and_never_into_the_state(program: ft.Program) -> None:
    state = program.init()
    before = ft.copy(state)
    with program.module(state, gradients=True, training=True) as lent:
        assert lent.training
        found = torch.autograd.grad(lent(X).square().mean(), lent.one.weight)  # type: ignore[union-attr]
        optimizer = torch.optim.SGD(lent.parameters(), lr=1.0)
        lent(X).sum().backward()
        optimizer.step()
    assert tree.equal(state, before)
    assert found[0].abs().sum() > 0
    inputs = X.clone().requires_grad_()
    with program.module(state) as lent:
        (by_input,) = torch.autograd.grad(lent(inputs).square().mean(), inputs)
        assert by_input.abs().sum() > 0
        assert not any(parameter.requires_grad for parameter in lent.parameters())


def clamps(module: nn.Module) -> None:
    with torch.no_grad():
        module.one.weight.clamp_(-0.01, 0.01)  # type: ignore[operator,union-attr]


def loads(module: nn.Module) -> None:
    module.load_state_dict(Tied().state_dict())


@pytest.mark.parametrize("write", [clamps, loads])
@pytest.mark.parametrize("weights", ["params", "ema"])
@pytest.mark.parametrize("how", ["module", "evaluating"])
def test_a_block_that_writes_to_the_state_is_refused(
    program: ft.Program, how: str, weights: str, write: Any
) -> None:
    state = program.init()
    before = ft.copy(state)
    with getattr(program, how)(state, weights) as lent:
        write(copy.deepcopy(lent))
        lent(X)
    assert tree.equal(state, before)
    with (
        pytest.raises(errors.ImpurityError, match=rf"state\.{weights}\.one\.weight was changed"),
        getattr(program, how)(state, weights) as lent,
    ):
        write(lent)


def test_it_works_under_accumulation_and_in_bf16() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    program = ft.program(model, follows, ft.optim.SGD(lr=0.1), accumulate=2, precision="bf16")
    state = program.init()
    with program.module(state) as teacher:
        assert teacher(X).dtype == torch.bfloat16
        state, metrics = program.train_step(state, (X, teacher))
    assert metrics["loss"].item() == 0
    assert not torch.is_autocast_enabled("cpu")


def test_a_compiled_step_takes_no_module(program: ft.Program) -> None:
    torch.manual_seed(0)
    follower = ft.program(nn.Linear(4, 4), follows, ft.optim.SGD(lr=0.1))
    compiled = ft.compiled(follower, backend="eager")
    with program.module(program.init()) as teacher, pytest.raises(errors.CaptureError) as caught:
        compiled.train_step(compiled.init(), (X, teacher))
    assert "there is a Tied in the batch" in str(caught.value)


def test_unknown_weights_and_states(program: ft.Program) -> None:
    with pytest.raises(errors.ConfigurationError, match='expected "params" or "ema"'):
        program.module(program.init(), "best").__enter__()
    with pytest.raises(errors.UnsupportedError, match="expected a TrainState"):
        program.module(program.init().params).__enter__()  # type: ignore[arg-type]


def test_a_module_kept_beyond_its_evaluation_computes_with_the_same_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    program = ft.donated(ft.program(model, squared, ft.optim.SGD(lr=0.1)))
    x = torch.randn(8, 3)
    state, _ = program.train_step(program.init(), x)
    with program.evaluating(state) as kept:
        expected = kept(x)
    assert torch.equal(kept(x), expected)
    later, _ = program.train_step(state, x)
    program.eval_step(later, x)
    assert torch.equal(kept(x), expected)
