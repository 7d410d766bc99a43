"""Arguments and models that a population refuses."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from populations import batch, plain_net, program, trained
from torch import nn
from torch.utils.checkpoint import checkpoint

import functrain as ft
from functrain import optim
from functrain.errors import ConfigurationError, UnsupportedError


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ({"lrr": [0.1]}, {}, r"hyperparameter 'lrr'.*did you mean 'lr'"),
        ({"lr": [0.1, 0.2], "eps": [1e-8]}, {}, "'eps': expected 2 values.*got 1"),
        ({"lr": [0.1, 0.2]}, {"seeds": [1]}, "1 seeds and 2 values of 'lr'"),
        ({"lr": 0.1}, {"seeds": [1]}, "'lr': expected a list"),
        ({"lr": [-0.1]}, {}, "AdamW: lr"),
        ({"clip_norm": [None, 1.0]}, {}, "expected a number for every member"),
        ({"lr": []}, {}, "expected hyperparameters or seeds, one for each member"),
        (3, {}, "expected hyperparameters by name.*got 3"),
        ({}, {}, "expected hyperparameters or seeds"),
        ({"lr": [0.1]}, {"batches": "mine"}, "batches: expected 'shared' or 'own'"),
    ],
)
def test_bad_arguments_are_named(given: Any, options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ft.population(program(), given, **options)


@pytest.mark.parametrize("given", [plain_net(), [program(), program()]])
def test_what_is_no_program_is_refused(given: Any) -> None:
    with pytest.raises(UnsupportedError, match="expected a Program, got a"):
        ft.population(given, seeds=[1, 2])


@pytest.mark.parametrize("values", [[0.0, 0.9], [0.0, 0.0]])
def test_a_value_that_decides_the_structure_is_refused(values: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"'momentum' of member 0: 0\.0 decides which"):
        ft.population(program(optim.SGD(0.1)), {"momentum": values})


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: program(optim.from_torch(torch.optim.Adam, lr=0.1)), "from_torch"),
        (lambda: program(precision="bf16"), "precision='bf16'"),
        (lambda: ft.compiled(program()), "takes an eager program"),
        (lambda: ft.population(program(), seeds=[1]), "takes an eager program"),
    ],
)
def test_programs_that_cannot_be_mapped_are_refused(made: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ft.population(made(), seeds=[1, 2])


class Model(nn.Module):
    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.body, self.function = plain_net(), forward

    def forward(self, x: Any) -> Any:
        return self.function(self.body, x)


def checkpointed(body: Any, x: Any) -> Any:
    return checkpoint(body, x, use_reentrant=False)


def writing(body: Any, x: Any) -> Any:
    with torch.no_grad():
        body[0].weight.mul_(0.5)
    return body(x)


def with_generator(body: Any, x: Any) -> Any:
    return body(x + torch.randn(x.shape, generator=torch.Generator().manual_seed(7)))


CASES: dict[str, Any] = {
    "generator": (with_generator, "torch.randn draws from a generator that it is given"),
    "checkpointing": (checkpointed, "activation checkpointing"),
    "in place": (lambda body, x: body(x) + torch.empty(4).normal_(), "torch.randn"),
    "randperm": (lambda body, x: body(x[torch.randperm(len(x))]), "torch.randperm cannot be drawn"),
    "random": (lambda body, x: body(x) * random.random(), "draws from random or numpy"),
    "numpy": (lambda body, x: body(x) * np.random.rand(), "draws from random or numpy"),
    "value": (lambda body, x: body(x) if body[0].weight.sum() > 0 else x, "cannot be mapped"),
    "writing": (writing, "writes to parameter 'body.0.weight'"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_model_that_cannot_be_mapped_is_refused_with_the_reason(name: str) -> None:
    forward, message = CASES[name]
    pop = ft.population(program(model=lambda: Model(forward)), seeds=[1, 2])
    with pytest.raises(UnsupportedError, match=message):
        trained(pop, 1)


def test_own_batches_need_the_axis_of_members() -> None:
    pop = ft.population(program(), seeds=[1, 2], batches="own")
    with pytest.raises(ConfigurationError, match=r"shape \[2, ...\].*got one of shape \[12, 6\]"):
        pop.train_step(pop.init(), batch(0))
    x, y = batch(0, 2)
    with pytest.raises(ConfigurationError, match="NumPy array"):
        pop.train_step(pop.init(), (x, y.numpy()))
