"""Batch norm's statistics over the micro-batches of a step: those of PyTorch's plain loop."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft


class Twice(nn.Module):
    """Goes through one batch norm twice in a forward."""

    def __init__(self, momentum: float | None) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        return self.norm(x + 1)


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean() + model(x[:, :4]).sum() * 0.1


@pytest.mark.parametrize("momentum", [0.1, 1.0, 0.0, None])
@pytest.mark.parametrize("kind", [Twice, lambda m: nn.Sequential(nn.BatchNorm1d(4, momentum=m))])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_they_are_those_of_the_plain_loop(
    kind: Any, momentum: float | None, precision: Any
) -> None:
    torch.manual_seed(0)
    module = kind(momentum)
    plain = copy.deepcopy(module)
    program = ft.program(module, loss, ft.optim.SGD(lr=0.0), accumulate=3, precision=precision)
    state = program.init()
    for step in range(4):
        batch = torch.randn(10, 4, generator=torch.Generator().manual_seed(step)) * (step + 1)
        state, _ = program.train_step(state, batch)
        for part in batch.tensor_split([4, 7]):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss(plain, part)
    expected = dict(plain.named_buffers())
    assert state.buffers.keys() == expected.keys()
    for path, value in expected.items():
        torch.testing.assert_close(state.buffers[path], value, rtol=1e-6, atol=1e-7)


def test_a_norm_that_is_frozen_stays() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))

    def frozen(model: Any, x: Tensor) -> Tensor:
        model[1].eval()
        return model(x).square().mean()

    program = ft.program(module, frozen, ft.optim.SGD(lr=0.1), accumulate=2)
    before = program.init()
    after, _ = program.train_step(before, torch.randn(8, 4))
    assert ft.tree.diff(dict(before.buffers), dict(after.buffers)) == []


class Largest(nn.BatchNorm1d):
    """Keeps the largest mean, which no composition of averages gives."""

    def forward(self, input: Tensor) -> Tensor:
        assert self.running_mean is not None
        if self.training:
            with torch.no_grad():
                self.running_mean.copy_(torch.maximum(self.running_mean, input.mean(0)))
        return input - self.running_mean


@pytest.mark.parametrize("rule", ["momentum that changes", "another rule"])
def test_they_follow_the_layer_that_there_is(rule: str) -> None:
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    norm = nn.BatchNorm1d(4) if rule == "momentum that changes" else Largest(4)
    plain = copy.deepcopy(norm)
    program = ft.program(
        nn.Sequential(norm, nn.Linear(4, 1)),
        lambda model, x: model(x).square().mean(),
        ft.optim.SGD(lr=0.0),
        accumulate=3,
    )
    norm.momentum = plain.momentum = 0.5
    state, _ = program.train_step(program.init(), x)
    for part in x.split(4):
        plain(part)
    torch.testing.assert_close(state.buffers["0.running_mean"], plain.running_mean)
