"""A program that is copied or pickled makes the same steps, with another module."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import tree

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 4, batch_first=True)
        self.rest = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rest(self.rnn(x[:, None])[0][:, 0])
        return out


def loss(model: nn.Module, x: Tensor) -> Tensor:
    mean: Tensor = model(x).square().mean()
    return mean


def in_evaluation() -> nn.Module:
    return Net().eval()


HOWS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda program: pickle.loads(pickle.dumps(program)),
}


def plain(program: ft.Program) -> ft.Program:
    return program


def captured(program: ft.Program) -> ft.Program:
    return ft.compiled(program, backend="eager")


def norms() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))


@pytest.mark.parametrize("how", list(HOWS))
@pytest.mark.parametrize("is_module", [False, True])
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize(
    ("transform", "model"),
    [(plain, Net), (plain, in_evaluation), (ft.donated, Net), (captured, norms)],
)
def test_a_copy_makes_the_same_steps(
    how: str, is_module: bool, steps: int, transform: Any, model: Any
) -> None:
    torch.manual_seed(0)
    given = model() if is_module else model
    program = transform(ft.program(given, loss, ft.optim.AdamW(lr=0.1)))
    state = program.init(seed=1)
    for _ in range(steps):
        state, _ = program.train_step(state, X)
    copied = HOWS[how](program)
    assert tree.equal(copied.init(seed=1), program.init(seed=1))
    assert copied.eval_step(state, X) == program.eval_step(state, X)
    ours, _ = program.train_step(ft.copy(state), X)
    theirs, _ = copied.train_step(ft.copy(state), X)
    assert tree.diff(ours, theirs) == []
    assert copied.fixed.model.module is not program.fixed.model.module
