"""The device part as a function of any tensors: under torch.func.vmap and torch.func.grad."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
import torch.utils._pytree as pytree
from models import classify
from torch import nn

import functrain as ft
from functrain import tree
from functrain.core import step
from functrain.transforms.unrolling.gradients import by_func


def device_state(state: ft.TrainState) -> step.DeviceState:
    names = ("params", "buffers", "optimizer", "ema")
    return {name: getattr(state, name) for name in names} | {"skipped": state.counters.skipped}


def network() -> nn.Module:
    torch.manual_seed(0)
    # A bias before a norm has a gradient of pure rounding noise, which Adam would scale up.
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


def batch(size: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, 6, generator=generator)
    return x, torch.randint(0, 3, (size,), generator=generator)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_norm": 0.1, "ema": 0.9},
        {"ema": ft.EMA(0.9, every=2)},
        {"nonfinite": "skip"},
        {"nonfinite": "ignore", "clip_value": 0.01},
        {"precision": "fp16"},
    ],
)
def test_the_functional_form_is_the_eager_one(options: Any) -> None:
    program = ft.program(network(), classify, ft.optim.AdamW(lr=1e-2), **options)
    functional = step.functional(program.fixed, by_func)
    other = attrs.evolve(program, device_step=functional)
    state = program.init()
    for _ in range(3):
        first, first_metrics = program.train_step(state, batch())
        second, second_metrics = other.train_step(state, batch())
        for (path, a), (_, b) in zip(tree.items(first), tree.items(second), strict=True):
            if isinstance(a, torch.Tensor):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7, msg=str(path))
        torch.testing.assert_close(first_metrics, second_metrics)
        state = first


def test_the_functional_form_draws_from_the_stream_of_the_step() -> None:
    module = nn.Sequential(network(), nn.Dropout(0.5))
    program = ft.program(module, classify, ft.optim.SGD(lr=1e-2))
    functional = step.functional(program.fixed, by_func)
    state = program.init()
    expected, _ = program.train_step(state, batch())
    before = torch.get_rng_state()
    found, _ = attrs.evolve(program, device_step=functional).train_step(state, batch())
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(found.params, expected.params)


def test_a_population_by_vmap_is_a_loop_over_its_members() -> None:
    program = ft.program(network(), classify, ft.optim.AdamW(lr=1e-2), clip_norm=0.5, ema=0.9)
    states = [program.init() for _ in range(3)]
    for index, state in enumerate(states):
        state.params["0.weight"].add_(0.1 * index)
    stacked = pytree.tree_map(lambda *leaves: torch.stack(leaves), *map(device_state, states))
    rates = torch.tensor([1e-3, 1e-2, 1e-1])
    x, y = batch()

    def one(state: step.DeviceState, lr: torch.Tensor) -> tuple[step.DeviceState, step.Outputs]:
        state, outputs = step.functional(program.fixed, by_func)(
            {**state, "loss_scale": None}, [(x, y)], lr, True
        )
        del state["loss_scale"]
        return state, outputs

    together, outputs = torch.func.vmap(one)(stacked, rates)
    for index, state in enumerate(states):
        alone, alone_outputs = one(device_state(state), rates[index])
        member = pytree.tree_map(lambda leaf, index=index: leaf[index], together)
        torch.testing.assert_close(member, alone, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(outputs["loss"][index], alone_outputs["loss"])


def test_gradients_through_a_step_reach_the_learning_rate() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    program = ft.program(model, classify, ft.optim.AdamW(lr=1e-2), nonfinite="ignore")
    state = device_state(program.init()) | {"loss_scale": None}
    x, y = batch()

    def loss_after(lr: torch.Tensor) -> torch.Tensor:
        new = state
        for _ in range(2):
            new, _ = step.functional(program.fixed, by_func)(new, [(x.double(), y)], lr, False)
        return step.functional(program.fixed, by_func)(new, [(x.double(), y)], lr, False)[1]["loss"]

    lr = torch.tensor(0.01, dtype=torch.float64)
    slope = torch.func.grad(loss_after)(lr)
    h = 1e-6
    difference = (loss_after(lr + h) - loss_after(lr - h)) / (2 * h)
    torch.testing.assert_close(slope, difference, rtol=1e-4, atol=1e-8)
