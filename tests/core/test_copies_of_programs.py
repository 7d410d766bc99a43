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
KINDS: dict[str, Callable[[Any], Any]] = {
    "eager": lambda program: program,
    "donated": ft.donated,
    "compiled": lambda program: ft.compiled(program, backend="eager"),
}


@pytest.mark.parametrize("how", list(HOWS))
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("model", [Net, in_evaluation, "module", "module in evaluation"])
@pytest.mark.parametrize("steps", [0, 2])
def test_a_copy_makes_the_same_steps(how: str, kind: str, model: Any, steps: int) -> None:
    if kind == "compiled":
        model, x = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)), X
    elif isinstance(model, str):
        torch.manual_seed(0)
        model, x = in_evaluation() if "evaluation" in model else Net(), X
    else:
        x = X
    program = KINDS[kind](ft.program(model, loss, ft.optim.AdamW(lr=0.1)))
    state = program.init(seed=1)
    for _ in range(steps):
        state, _ = program.train_step(state, x)
    copied = HOWS[how](program)
    assert tree.equal(copied.init(seed=1), program.init(seed=1))
    assert copied.eval_step(state, x) == program.eval_step(state, x)
    ours, _ = program.train_step(ft.copy(state), x)
    theirs, _ = copied.train_step(ft.copy(state), x)
    assert tree.diff(ours, theirs) == []
    assert copied.fixed.model.module is not program.fixed.model.module
