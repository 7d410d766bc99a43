"""A torch loop goes on in functrain: the next steps are those that torch would make."""

from __future__ import annotations

import copy
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import errors, optim
from functrain.optim import load_torch_state

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """The last layer is used in some batches only, so its parameters have other counts."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.extra = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        x = self.head(self.body(x).tanh())
        return self.extra(x) if x.shape[0] < 8 else x


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x) - x).square().mean()


CASES: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.1},
    "SGD with momentum": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "SGD with dampening": {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.01},
    "Adam": {"lr": 0.01, "amsgrad": True, "betas": (0.8, 0.99)},
    "AdamW": {"lr": 0.01, "weight_decay": 0.1},
    "RMSprop": {"lr": 0.01, "momentum": 0.9, "centered": True},
    "Adagrad": {"lr": 0.01, "lr_decay": 0.1},
    "Adadelta": {"lr": 0.5},
    "Adamax": {"lr": 0.01},
    "NAdam": {"lr": 0.01},
    "RAdam": {"lr": 0.01},
    "Adafactor": {"lr": 0.01},
}
EVERY = pytest.mark.parametrize("case", CASES)


def trained(optimizer: torch.optim.Optimizer, model: nn.Module, batches: list[Tensor]) -> None:
    for batch in batches:
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()


def begun(case: str, named: bool = False) -> tuple[Any, Any, torch.optim.Optimizer]:
    """Return a model after some steps of a torch loop, our optimizer, and torch's."""
    torch.manual_seed(0)
    name, model = case.split()[0], Net()
    params = model.named_parameters() if named else model.parameters()
    theirs = getattr(torch.optim, name)(params, **CASES[case])
    trained(theirs, model, [X, X[:4], X + 1])
    return model, getattr(optim, name)(**CASES[case]), theirs


def continued(program: ft.Program, model: nn.Module, theirs: Any) -> None:
    """Compare five more steps with those of torch."""
    state = program.init(params=model.state_dict())
    state = load_torch_state(program, state, theirs.state_dict())
    for batch in (X - 1, X[:4], X, X[:2], X):
        state, _ = program.train_step(state, batch)
        trained(theirs, model, [batch])
        for path, parameter in model.named_parameters():
            torch.testing.assert_close(
                state.params[path], parameter.detach(), rtol=2e-6, atol=2e-7, msg=path
            )


@EVERY
def test_the_next_steps_are_those_of_torch(case: str) -> None:
    model, ours, theirs = begun(case)
    continued(ft.program(copy.deepcopy(model), loss, ours), model, theirs)


@pytest.mark.parametrize("case", ["AdamW", "SGD with momentum"])
def test_from_torch_takes_it_over_too(case: str) -> None:
    model, _, theirs = begun(case)
    ours = optim.from_torch(type(theirs), **CASES[case])
    continued(ft.program(copy.deepcopy(model), loss, ours), model, theirs)


def test_muon_goes_on() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 4, bias=False)
    options: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.9}
    theirs = torch.optim.Muon(model.parameters(), **options)
    trained(theirs, model, [X, X + 1])
    program = ft.program(copy.deepcopy(model), loss, optim.Muon(**options))
    state = load_torch_state(program, program.init(), theirs.state_dict())
    state, _ = program.train_step(state, X)
    trained(theirs, model, [X])
    torch.testing.assert_close(state.params["weight"], model.weight.detach(), rtol=1e-4, atol=1e-5)


def test_before_the_first_step_and_from_a_file(tmp_path: Any) -> None:
    model, ours, _ = begun("AdamW")
    fresh = torch.optim.AdamW(model.parameters(), **CASES["AdamW"])
    continued(ft.program(copy.deepcopy(model), loss, ours), model, fresh)
    torch.save(fresh.state_dict(), tmp_path / "optimizer.pt")
    program = ft.program(copy.deepcopy(model), loss, ours)
    found = load_torch_state(program, program.init(), torch.load(tmp_path / "optimizer.pt"))
    given = load_torch_state(program, program.init(), fresh.state_dict())
    assert ft.tree.equal(found, given)


def test_groups_by_order_and_by_names() -> None:
    for named in (False, True):
        torch.manual_seed(0)
        model = Net()
        split: dict[str, list[Any]] = {"decay": [], "plain": []}
        for name, parameter in model.named_parameters():
            part = "plain" if name.endswith("bias") else "decay"
            split[part].append((name, parameter) if named else parameter)
        theirs = torch.optim.AdamW(
            [
                {"params": split["plain"], "weight_decay": 0.0},
                {"params": split["decay"], "lr": 0.02},
            ],
            lr=0.01,
            weight_decay=0.1,
        )
        trained(theirs, model, [X, X[:4]])
        groups = optim.groups(
            [
                ("*bias", optim.AdamW(lr=0.01, weight_decay=0.0)),
                ("*", optim.AdamW(lr=0.02, weight_decay=0.1)),
            ]
        )
        continued(ft.program(copy.deepcopy(model), loss, groups), model, theirs)


def test_frozen_parameters_are_left_out() -> None:
    for given in ("all", "trained"):
        torch.manual_seed(0)
        model = Net()
        model.body.requires_grad_(False)
        params = [p for p in model.parameters() if given == "all" or p.requires_grad]
        theirs = torch.optim.Adam(params, lr=0.01)
        trained(theirs, model, [X, X[:4]])
        continued(ft.program(copy.deepcopy(model), loss, optim.Adam(lr=0.01)), model, theirs)


def test_names_go_before_order() -> None:
    torch.manual_seed(0)
    model = Net()
    theirs = torch.optim.Adam(list(model.named_parameters())[::-1], lr=0.01)
    trained(theirs, model, [X, X[:4]])
    continued(ft.program(copy.deepcopy(model), loss, optim.Adam(lr=0.01)), model, theirs)


def test_it_changes_neither_state_nor_dict_and_goes_on_compiled() -> None:
    model, ours, theirs = begun("AdamW")
    program = ft.compiled(ft.program(copy.deepcopy(model), loss, ours), backend="eager")
    values = copy.deepcopy(theirs.state_dict())
    state = program.init(params=model.state_dict())
    before = ft.copy(state)
    found = load_torch_state(program, state, values)
    donated, _ = ft.donated(program).train_step(found, X)
    assert ft.tree.equal(state, before)
    assert ft.tree.equal(values, theirs.state_dict())
    trained(theirs, model, [X])
    torch.testing.assert_close(dict(donated.params), dict(model.named_parameters()))


def other(**changes: Any) -> Any:
    return attrs.evolve(optim.AdamW(**CASES["AdamW"]), **changes)


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        (other(weight_decay=0.2), r"weight_decay=0\.1 in torch, 0\.2 in the program"),
        (other(betas=(0.5, 0.999)), "betas="),
        (other(amsgrad=True), "amsgrad=False in torch, True in the program"),
        (optim.Adam(lr=0.01, weight_decay=0.1), "decoupled_weight_decay=True in torch, False"),
        (optim.RMSprop(lr=0.01, weight_decay=0.1), "betas=.* in torch, which RMSprop does not"),
        (optim.Lion(lr=0.01), "Lion has no counterpart"),
        (optim.Lookahead(optim.AdamW(lr=0.01)), "Lookahead has no counterpart"),
    ],
)
def test_another_optimizer_is_refused(ours: Any, words: str) -> None:
    model, _, theirs = begun("AdamW")
    program = ft.program(model, loss, ours)
    with pytest.raises(errors.FunctrainError, match=words):
        load_torch_state(program, program.init(), theirs.state_dict())


def test_other_parameters_are_refused() -> None:
    model, ours, theirs = begun("AdamW")
    program = ft.program(model, loss, ours)
    state, values = program.init(), theirs.state_dict()
    fewer = torch.optim.AdamW(list(model.parameters())[:3], lr=0.01, weight_decay=0.1)
    with pytest.raises(errors.ParameterMismatchError, match=r"\[3\] parameters by group in torch"):
        load_torch_state(program, state, fewer.state_dict())
    values["state"][1]["exp_avg"] = torch.ones(5)
    with pytest.raises(errors.ParameterMismatchError, match=r"'body.bias' has shape \[5\]"):
        load_torch_state(program, state, values)
    del values["state"][1]["exp_avg"]
    with pytest.raises(errors.ParameterMismatchError, match=r"'body.bias' has no 'exp_avg'"):
        load_torch_state(program, state, values)
    with pytest.raises(errors.ConfigurationError, match="param_groups"):
        load_torch_state(program, state, model.state_dict())
    with pytest.raises(errors.UnsupportedError, match="expected a TrainState"):
        load_torch_state(program, values, state)  # type: ignore[arg-type]


def test_names_that_are_unknown_are_named() -> None:
    model, ours, theirs = begun("AdamW", named=True)
    values = theirs.state_dict()
    values["param_groups"][0]["param_names"][0] = "trunk.weight"
    program = ft.program(model, loss, ours)
    with pytest.raises(errors.ParameterMismatchError, match=r"missing 'body\.weight'"):
        load_torch_state(program, program.init(), values)
