"""Patterns find a tied parameter by each of its names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.listeners import GradientMonitor


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body = nn.Embedding(10, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(self.embed(x)))


X = torch.arange(10)
SGD = ft.optim.SGD(lr=0.1)
FROZEN = ft.optim.Frozen()


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x), x)


def moved(program: ft.Program, steps: int = 1) -> set[str]:
    start = state = program.init()
    for _ in range(steps):
        state, _ = program.train_step(state, X)
    return {path for path, one in state.params.items() if not one.equal(start.params[path])}


@pytest.mark.parametrize("pattern", ["head.*", ["head.*"], "embed.*", "*.weight"])
def test_what_is_trained(pattern: Any) -> None:
    assert "embed.weight" in moved(ft.program(Net(), loss, SGD, trainable=pattern))


@pytest.mark.parametrize(
    "optimizer",
    [
        ft.optim.groups([("head.*", SGD), ("*", FROZEN)]),
        ft.optim.groups([("*", ft.optim.groups([("head.*", SGD), ("*", FROZEN)]))]),
        ft.optim.ClipByBlockRms(ft.optim.groups([("head.*", SGD), ("*", FROZEN)]), 1.0),
    ],
    ids=["groups", "groups in groups", "wrapped groups"],
)
def test_groups(optimizer: Any) -> None:
    assert moved(ft.program(Net(), loss, optimizer)) == {"embed.weight"}


def test_frozen_groups() -> None:
    optimizer = ft.optim.groups([("head.*", FROZEN), ("*", SGD)])
    assert moved(ft.program(Net(), loss, optimizer)) == {"body.weight", "body.bias"}


def test_a_pattern_of_a_later_group_is_no_misspelling() -> None:
    layers = ["embed.*", "body.*", "head.*"]
    program = ft.program(Net(), loss, ft.optim.layerwise_lr_decay(SGD, 0.5, layers))
    assert len(moved(program)) == 3


def test_phases() -> None:
    program = ft.phases(ft.program(Net(), loss, SGD), [("1 steps", "head.*"), (None, "*")])
    assert moved(program) == {"embed.weight"}


def test_pretrained_values() -> None:
    program = ft.program(Net(), loss, SGD)
    state = program.init(params={"head.weight": torch.ones(10, 8)}, only=["head.*"])
    assert state.params["embed.weight"].eq(1).all()


def test_monitors() -> None:
    program = ft.program(Net(), loss, SGD)
    monitor = GradientMonitor(program, "1 step", {"head": "head.*"})
    run = ft.fit(program, [X], until="1 step", listeners=[monitor])
    assert run.history["grad_norm.head"][0] > 0


def test_a_predicate_is_asked_about_the_first_name() -> None:
    rest = lambda path, _: not path.startswith("embed")  # noqa: E731
    program = ft.program(Net(), loss, SGD, trainable=rest)
    assert moved(program) == {"body.weight", "body.bias"}
