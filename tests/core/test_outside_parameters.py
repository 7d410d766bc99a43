"""Parameters outside of the model: no step trains them, and the first one says so."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.errors import UntrainedParameterWarning

X = torch.randn(8, 4)


def program(loss: Callable[[nn.Module, Tensor], Tensor]) -> ft.Program:
    return ft.program(lambda: nn.Linear(4, 2), loss, ft.optim.SGD(lr=0.1))


@pytest.mark.parametrize("change", [lambda p: p, ft.donated, ft.checked])
def test_the_first_step_warns_once(change: Callable[[Any], Any]) -> None:
    centers = nn.Embedding(3, 2)
    criterion = lambda model, x: (model(x) - centers.weight[0]).square().mean()  # noqa: E731
    made = change(program(criterion))
    with pytest.warns(UntrainedParameterWarning, match=r"1 trainable .* \[\[3, 2\]\], which"):
        state, _ = made.train_step(made.init(), X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.train_step(state, X)


def test_a_part_of_the_model_and_constants_are_no_such_parameters() -> None:
    frozen = nn.Linear(2, 2).requires_grad_(False)
    teacher = nn.Linear(4, 2)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = teacher(x)
        x.requires_grad_()
        return (frozen(model(x)) - wanted).square().mean()

    made = program(loss)
    made.train_step(made.init(), X)  # a warning would be an error
