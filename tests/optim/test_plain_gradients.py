"""A kernel looks at the layouts of all tensors that it walks side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import tree

X = torch.linspace(-1.0, 1.0, 32).reshape(8, 4)
OPTIMIZERS = [ft.optim.AdamW(lr=0.1), ft.optim.SGD(lr=0.1, momentum=0.9), ft.optim.Lion(lr=0.1)]


def draw(seed: int) -> Tensor:
    return torch.randn(4, 4, generator=torch.Generator().manual_seed(seed))


def program(optimizer: Any, transform: Callable[[ft.Program], ft.Program]) -> ft.Program:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    return transform(ft.program(model, lambda m, x: m(x).square().mean(), optimizer, clip_norm=1.0))


def transposed(tensor: Tensor) -> Tensor:
    """The same values in another order in memory."""
    return tensor.t().contiguous().t()


def strides_of_a_moment(state: ft.TrainState) -> None:
    slots = next(value for value in state.optimizer.values() if isinstance(value, dict))
    moment = slots["0.weight"]
    moment.set_(transposed(moment.clone()))
    assert not moment.is_contiguous()


def strides_of_a_parameter(state: ft.TrainState) -> None:
    weight = state.params["0.weight"]
    weight.set_(transposed(weight.clone()))


def data_of_a_parameter(state: ft.TrainState) -> None:
    weight = state.params["0.weight"]
    weight.data = transposed(weight.clone())


def dtype_of_a_moment(state: ft.TrainState) -> None:
    slots = next(value for value in state.optimizer.values() if isinstance(value, dict))
    slots["0.weight"].data = slots["0.weight"].double()


def gradients_wanted(state: ft.TrainState) -> None:
    state.params["0.weight"].requires_grad_()


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("transform", [lambda p: p, ft.donated], ids=["pure", "donated"])
@pytest.mark.parametrize(
    "change",
    [
        strides_of_a_moment,
        strides_of_a_parameter,
        data_of_a_parameter,
        dtype_of_a_moment,
        gradients_wanted,
    ],
)
def test_a_tensor_that_was_changed_in_place_is_noticed(
    change: Any, transform: Any, optimizer: Any
) -> None:
    made = program(optimizer, transform)

    def two_steps_after(change: Callable[[ft.TrainState], None]) -> ft.TrainState:
        state, _ = made.train_step(made.init(), X)
        change(state)
        for _ in range(2):
            state, _ = made.train_step(state, X)
        return state

    expected = two_steps_after(lambda state: None)
    found = two_steps_after(change)
    for path, value in expected.params.items():
        torch.testing.assert_close(found.params[path].detach(), value)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("transform", [lambda p: p, ft.donated], ids=["pure", "donated"])
def test_a_state_with_other_tensors_is_noticed(transform: Any, optimizer: Any) -> None:
    made = program(optimizer, transform)

    def after(change: Callable[[Any], Any]) -> ft.TrainState:
        state, _ = made.train_step(made.init(), X)
        optimizer = tree.map(change, tree.thawed(state.optimizer))
        params = tree.map(change, tree.thawed(state.params))
        state = attrs.evolve(state, params=params, optimizer=optimizer)
        return made.train_step(state, X)[0]

    found = after(lambda leaf: transposed(leaf) if leaf.ndim == 2 else leaf)
    for path, value in after(lambda leaf: leaf).params.items():
        torch.testing.assert_close(found.params[path], value)
