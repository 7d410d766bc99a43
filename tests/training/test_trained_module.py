"""The module with the trained weights: ``run.model`` and ``program.trained``."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import tree
from functrain.errors import UnsupportedError

X = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(-1)


class Net(nn.Module):
    """Has a tie, a batch norm, dropout, a frozen parameter, and an LSTM that lists its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.norm, self.drop = nn.BatchNorm1d(4), nn.Dropout()
        self.recurrent, self.out = nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 3)
        self.one.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Any:
        found = self.drop(self.norm(self.two(self.one(x))))
        return self.out(self.recurrent(found[:, None])[0][:, 0])


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def fitted(model: Any, **options: Any) -> tuple[ft.Program, ft.Run]:
    program = ft.program(model, loss, ft.optim.Adam(lr=0.01), **options)
    return program, ft.fit(program, ft.data.Batches((X, Y), 8, seed=0), until="2 epochs")


@pytest.mark.parametrize("made", [Net, Net()], ids=["factory", "instance"])
def test_it_computes_what_the_program_evaluates(made: Any) -> None:
    program, run = fitted(made, ema=0.9)
    model = run.model
    assert type(model) is Net
    assert model is run.model
    assert not model.training
    with program.evaluating(run.state) as lent:
        assert torch.equal(model(X), lent(X))
    with program.evaluating(run.state, "ema") as lent:
        assert torch.equal(program.trained(run.state, weights="ema")(X), lent(X))


def test_it_is_an_ordinary_module() -> None:
    net = Net()
    before = ft.tree.digest(dict(net.state_dict()))
    _, run = fitted(net)
    held, model = ft.copy(run.state), run.model
    assert model.two.weight is model.one.weight
    assert all(isinstance(each, nn.Parameter) for each in model.parameters())
    assert [p for p, each in model.named_parameters() if not each.requires_grad] == ["one.bias"]
    Net().load_state_dict(model.state_dict())
    torch.export.export(model, (X,))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model.train()(X).sum().backward()
    optimizer.step()
    assert not torch.equal(model.out.weight, held.params["out.weight"])
    assert ft.tree.equal(run.state, held)
    assert ft.tree.digest(dict(net.state_dict())) == before


def test_a_state_of_another_model_and_an_average_that_is_not_kept_are_refused() -> None:
    program, run = fitted(Net())
    other = ft.program(nn.Linear(4, 3), loss, ft.optim.SGD(lr=0.1))
    with pytest.raises(ft.errors.ParameterMismatchError):
        other.trained(run.state)
    with pytest.raises(ft.errors.ConfigurationError, match="ema"):
        program.trained(run.state, weights="ema")


def test_a_run_of_several_modules_says_whose_to_take() -> None:
    program = ft.program(lambda: nn.Linear(4, 3), loss, ft.optim.SGD(lr=0.1))
    pop = ft.population(program, {"lr": [0.1, 0.2]}, seeds=0)
    run = ft.fit(pop, [(X, Y)], until="1 epoch")
    with pytest.raises(UnsupportedError, match=r"pop.programs\[i\]"):
        assert run.model
    member = pop.programs[1].trained(pop.member(run.state, 1))
    assert torch.equal(member.weight, pop.member(run.state, 1).params["weight"])


def test_a_run_of_any_loss_can_be_pickled_and_saved(tmp_path: Path) -> None:
    program = ft.program(nn.Linear(4, 3), lambda m, b: loss(m, b), ft.optim.Adam(lr=0.01))
    run = ft.fit(program, ft.data.Batches((X, Y), 8, seed=0), until="1 epoch")
    ft.save(tmp_path / "run", run)
    loaded = pickle.loads(pickle.dumps(run))
    assert tree.diff(loaded.state, run.state) == []
    with pytest.raises(UnsupportedError, match=r"program\.trained\(run\.state\)"):
        _ = loaded.model
    assert run.model(X).shape == (32, 3)
