"""Lookahead beside the two loops of the paper, and what is evaluated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.errors import ConfigurationError
from functrain.optim import SGD, Adam, AdamW, Optimizer, ScheduleFreeAdamW, from_torch, groups
from functrain.optim.wrappers import Float32State, Lookahead

pytestmark = pytest.mark.row(13)


def grads_at(step: int) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(step)
    return {"w": torch.randn(3, dtype=torch.float64, generator=source)}


@pytest.mark.parametrize("inner", [Adam(0.1), from_torch(torch.optim.Adam, lr=0.1)], ids=repr)
def test_equals_the_nested_loops_of_the_paper(inner: Any) -> None:
    slow = nn.Parameter(torch.ones(3, dtype=torch.float64))
    fast = nn.Parameter(slow.detach().clone())
    adam = torch.optim.Adam([fast], lr=0.1)
    for outer in range(4):
        for k in range(5):
            fast.grad = grads_at(5 * outer + k)["w"]
            adam.step()
        slow.data += 0.8 * (fast.data - slow.data)
        fast.data.copy_(slow.data)

    lookahead = Lookahead(inner, sync_period=5, slow_step_size=0.8)
    params = {"w": torch.ones(3, dtype=torch.float64)}
    state = lookahead.init(params)
    for step in range(20):
        params, state = lookahead.update(grads_at(step), state, params, 0.1)
    torch.testing.assert_close(params["w"], slow.detach(), rtol=1e-12, atol=0)


def test_the_slow_weights_wait_between_synchronisations() -> None:
    lookahead = Lookahead(Adam(), sync_period=3, slow_step_size=0.5)
    params = {"w": torch.zeros(3, dtype=torch.float64)}
    state = lookahead.init(params)
    seen = []
    for step in range(6):
        params, state = lookahead.update(grads_at(step), state, params, 0.1)
        slow = lookahead.eval_params(state, params)["w"]
        seen.append((bool(slow.any()), torch.equal(slow, params["w"])))
    assert seen == [(False, False)] * 2 + [(True, True)] + [(True, False)] * 2 + [(True, True)]


def test_the_step_size_may_be_a_tensor_under_vmap() -> None:
    params = {"w": torch.zeros(3), "s": torch.zeros(())}
    grads = {"w": torch.ones(3), "s": torch.ones(())}

    def member(size: Tensor) -> dict[str, Tensor]:
        lookahead = Lookahead(Adam(), 1, size)
        return lookahead.update(grads, lookahead.init(params), params, 0.1)[0]

    found = torch.func.vmap(member)(torch.tensor([0.25, 1.0], dtype=torch.float64))
    assert {leaf.dtype for leaf in found.values()} == {torch.float32}
    torch.testing.assert_close(found["s"], torch.tensor([-0.025, -0.1]))


def test_a_program_evaluates_with_the_slow_weights() -> None:
    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return (model(batch) - 1).square().mean()

    lookahead = groups([("bias", Adam(0.1)), ("*", Lookahead(AdamW(0.1), sync_period=2))])
    program = ft.program(nn.Linear(3, 1), loss, lookahead)
    batch = torch.ones(2, 3)
    state = program.init()
    start = state.params["weight"]
    state, _ = program.train_step(state, batch)
    with program.evaluating(state) as model:
        assert torch.equal(model.weight, start)
        assert torch.equal(model.bias, state.params["bias"])
    assert not torch.equal(state.params["weight"], start)
    before = ft.copy(state)
    program.train_step(state, batch)
    assert ft.tree.equal(before, state)


@pytest.mark.parametrize(
    "inner",
    [
        Float32State(SGD(1.0), master_weights=True),
        ScheduleFreeAdamW(0.1),
        groups([("w*", Float32State(SGD(1.0), master_weights=True)), ("*", SGD(1.0))]),
    ],
    ids=["masters", "schedule-free", "in groups"],
)
def test_an_optimizer_that_keeps_weights_of_its_own_is_refused(inner: Optimizer) -> None:
    with pytest.raises(ConfigurationError, match="keeps weights of its own"):
        Lookahead(inner)


def test_around_it_float32_state_follows_the_synchronisation() -> None:
    wide = Float32State(Lookahead(SGD(1.0), sync_period=2), master_weights=True)
    params, grads = {"w": torch.ones(1).bfloat16()}, {"w": -torch.ones(1).bfloat16()}
    state, found = wide.init(params), []
    for _ in range(6):
        params, state = wide.update(grads, state, params, 1.0)
        found.append(params["w"].item())
    assert found == [2.0, 2.0, 3.0, 3.0, 4.0, 4.0]
