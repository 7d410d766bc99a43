"""A run that is resumed with another optimizer or with other names of layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import functrain as ft
from functrain import errors
from functrain.checkpoint import weights

X = torch.linspace(-1, 1, 32).reshape(16, 2)
TORCH, OPTIM = ft.optim.from_torch, torch.optim


class Extra(OPTIM.Optimizer):
    """A class of a user with an option that adds an entry to its state."""

    def __init__(self, params: Any, lr: float = 0.1, extra: bool = False) -> None:
        super().__init__(params, {"lr": lr, "extra": extra})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                state = self.state[param]
                if not state:
                    state["sum"] = torch.zeros_like(param)
                    state |= {"more": torch.zeros(())} if group["extra"] else {}
                state["sum"] += param.grad
                if group["extra"]:
                    state["more"] += 1
                param -= group["lr"] * state["sum"]


class Named(nn.Module):
    """A model whose layers have chosen names."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        self.names = first, second
        self.add_module(first, nn.Linear(2, 3))
        self.add_module(second, nn.BatchNorm1d(3))
        self.out = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = map(self.get_submodule, self.names)
        return self.out(second(first(x)))


def program(optimizer: Any, *names: str, **options: Any) -> ft.Program:
    loss = lambda model, x: model(x).square().mean()  # noqa: E731
    made = lambda: Named(*(names or ("a", "b")))  # noqa: E731
    return ft.program(made, loss, optimizer, **options)


def fit(made: ft.Program, until: str, directory: Path | None = None, **options: Any) -> ft.Run:
    return ft.fit(made, ft.data.Batches(X, 4), until=until, directory=directory, **options)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ft.optim.AdamW(lr=0.01), TORCH(OPTIM.Adam, lr=0.01)),
        (TORCH(OPTIM.Adam, lr=0.01), ft.optim.AdamW(lr=0.01)),
        (ft.optim.SGD(lr=0.01), TORCH(OPTIM.SGD, lr=0.01)),
        (ft.optim.SGD(lr=0.01), ft.optim.SGD(lr=0.01, momentum=0.9)),
        (ft.optim.AdamW(lr=0.01), ft.optim.AdamW(lr=0.01, amsgrad=True)),
        (ft.optim.AdamW(lr=0.01, amsgrad=True), ft.optim.AdamW(lr=0.01)),
        (TORCH(OPTIM.Adam, lr=0.01), TORCH(OPTIM.AdamW, lr=0.01)),
        (TORCH(OPTIM.Adagrad, lr=0.01), TORCH(OPTIM.SGD, lr=0.01)),
        (TORCH(OPTIM.Adam, lr=0.01), ft.optim.Lookahead(TORCH(OPTIM.Adam, lr=0.01))),
    ],
)
def test_another_optimizer_is_refused_with_what_to_write(
    first: Any, second: Any, tmp_path: Path
) -> None:
    run = fit(program(first), "1 epoch", tmp_path / "run")
    with pytest.raises(errors.CheckpointMismatchError, match=r"train\.optimizer") as refused:
        fit(program(second), "2 epochs", tmp_path / "run")
    assert "begin again from its weights" in "".join(refused.value.__notes__)
    begun = program(second).init(params=weights(refused.value.path))
    assert ft.tree.equal(begun.params, run.state.params)
    fit(program(second), "1 epoch", tmp_path / "other", state=begun)


@pytest.mark.parametrize(
    ("cls", "option", "entry"),
    [
        (OPTIM.Adam, {"amsgrad": True}, "max_exp_avg_sq"),
        (OPTIM.RMSprop, {"centered": True}, "grad_avg"),
        (OPTIM.RMSprop, {"momentum": 0.9}, "momentum_buffer"),
        (Extra, {"extra": True}, "more"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.filterwarnings("ignore::functrain.errors.RecipeChangedWarning")
def test_an_option_that_a_state_of_torch_does_not_fit(
    cls: Any, option: dict[str, Any], entry: str, wrapped: bool, tmp_path: Path
) -> None:
    wrap: Any = ft.optim.Lookahead if wrapped else lambda optimizer: optimizer
    fit(program(wrap(TORCH(cls, lr=0.01))), "1 epoch", tmp_path)
    with pytest.raises(errors.ParameterMismatchError, match=rf"state\.a\.weight\.{entry}: missing"):
        fit(program(wrap(TORCH(cls, lr=0.01, **option))), "2 epochs", tmp_path)
    assert fit(program(wrap(TORCH(cls, lr=0.01))), "2 epochs", tmp_path).new_steps == 4


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (TORCH(OPTIM.SGD, lr=0.01), TORCH(OPTIM.SGD, lr=0.01, momentum=0.9)),
        (TORCH(OPTIM.Adam, lr=0.01, amsgrad=True), TORCH(OPTIM.Adam, lr=0.02)),
    ],
)
def test_an_option_that_torch_takes_goes_on(before: Any, after: Any, tmp_path: Path) -> None:
    fit(program(before), "1 epoch", tmp_path)
    with pytest.warns(errors.RecipeChangedWarning):
        assert fit(program(after), "2 epochs", tmp_path).new_steps == 4


def test_a_key_that_a_class_of_a_user_lacks_stays_its_own_error() -> None:
    class Broken(OPTIM.SGD):
        def step(self, closure: Any = None) -> None:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fit(program(TORCH(Broken, lr=0.01)), "1 epoch")


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (ft.optim.AdamW(lr=0.01), {"ema": 0.9}),
        (ft.optim.SGD(lr=ft.schedules.WarmupCosine(0.1, warmup_steps=2), momentum=0.9), {}),
        (TORCH(OPTIM.Adam, lr=0.01), {}),
    ],
)
def test_renamed_layers_go_on_as_the_error_says(
    optimizer: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    old, new = (program(optimizer, *names, **options) for names in (("a", "b"), ("head", "norm")))
    whole = fit(old, "3 epochs", tmp_path / "run", save_every="1 epoch")
    with pytest.raises(errors.CheckpointMismatchError, match=r"params\.head\.weight") as refused:
        fit(new, "3 epochs", tmp_path / "run", resume=4)
    told = "".join(refused.value.__notes__)
    begin, end = told.index("functrain.load("), told.index(", then fit(")
    written = told[begin:end].replace("'*.old': '*.new'", "'*.a': '*.head', '*.b': '*.norm'")
    state = eval(written, {"functrain": ft, "program": new})
    assert state.counters.step == 4
    run = fit(new, "3 epochs", tmp_path / "other", state=state)
    assert run.new_steps == 8
    for first, second in zip(whole.state.params.values(), run.state.params.values(), strict=True):
        assert torch.equal(first, second)
