"""Mistakes in making a program and a step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import functrain as ft
from functrain import errors
from mistakes.parts import X, fit, linear, program, squared, step

CRITERION = nn.Linear(1, 3)


class Graph:
    def __init__(self) -> None:
        self.nodes, self.edges = X, torch.zeros(2, 5, dtype=torch.int64)


def forgotten() -> None:
    def one(programs: Any, states: Any, batch: Any, rng: Any) -> Any:
        return {"one": states["one"]}, {}

    made = ft.joint({"one": program(), "other": program()}, step=one)
    made.train_step(made.init(), X)


def sparse() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    step(program(model=table), torch.tensor([0, 1]))


def consumed() -> None:
    made = ft.donated(program())
    state = made.init()
    made.train_step(state, X)
    state.params  # noqa: B018


def assigned() -> None:
    program().init().rng = 3  # type: ignore[misc,assignment]


class Recurrent(nn.Linear):
    hidden: torch.Tensor | float = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.hidden = super().forward(x + self.hidden).detach()
        return super().forward(x + self.hidden)


def infinite(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return squared(model, batch) / 0


def seeded_by_the_system(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    torch.seed()
    return squared(model, batch) * torch.rand(())


MISTAKES = [
    (errors.CallError, lambda: program(clipnorm=1.0), "program() takes no argument 'clipnorm'"),
    (
        errors.UnknownNameError,
        lambda: program().init().params["weigth"],
        "this mapping of the state has no 'weigth'",
    ),
    (
        errors.ConfigurationError,
        lambda: program(optimizer=torch.optim.AdamW),
        "got <class 'torch.optim.adamw.AdamW'>",
    ),
    (errors.StepResultError, forgotten, "step must return a state of each program"),
    (
        errors.ModelError,
        lambda: program(model="resnet"),
        "nn.Module or a callable that returns one",
    ),
    (
        errors.ParameterMismatchError,
        lambda: program().init(params={"weigth": torch.ones(1, 4), "bias": torch.ones(2)}),
        "has shape [2], expected [1]",
    ),
    (
        errors.LossError,
        lambda: step(
            program(lambda model, batch: ft.Loss(squared(model, batch), metrics={"lr": 1.0}))
        ),
        "Give yours another name",
    ),
    (
        errors.UnsupportedError,
        lambda: program().init().params.update(weight=X),
        "attrs.evolve(state, params={**state.params, path: tensor})",
    ),
    (
        errors.RandomnessError,
        lambda: step(program(seeded_by_the_system)),
        "take int(torch.randint(2**31, ()))",
    ),
    (
        errors.BatchSizeError,
        lambda: ft.evaluate(
            program(lambda model, graph: squared(model, graph.nodes)),
            program().init(),
            [Graph(), Graph()],
        ),
        "@functrain.data.size.register(Graph)",
    ),
    (errors.NonFiniteError, lambda: step(program(infinite)), "Lower the learning rate"),
    (
        errors.ModuleStateWarning,
        lambda: fit(program=program(model=Recurrent(4, 4))),
        "in the attributes ['hidden']",
    ),
    (
        errors.ModuleStateWarning,
        lambda: step(program(loss=lambda model, x: CRITERION(model(x)).square().mean())),
        "depends on 2 trainable parameters",
    ),
    (
        errors.NonFiniteWarning,
        lambda: step(program(infinite, nonfinite="skip", detect_anomaly=True)),
        "an infinity from the backward pass of div",
    ),
    (errors.DonatedStateError, consumed, "Keep the state that the step returned"),
    (errors.StateAssignmentError, assigned, "state.rng cannot be assigned to"),
    (
        errors.EmptyBatchWarning,
        lambda: step(program(model=linear), X[:0]),
        "the batch has no samples",
    ),
]
