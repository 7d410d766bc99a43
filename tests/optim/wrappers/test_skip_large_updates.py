"""Large updates are skipped and counted, and change nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import functrain as ft
from functrain.optim import Adam, AdamW, Optimizer, from_torch
from functrain.optim.wrappers import Lookahead, SkipLargeUpdates

pytestmark = pytest.mark.row(10)

SCALES = [1.0, 10.0, float("nan"), 1.0, float("inf"), 1.0]  # of gradients of norm 2
FINE = [0, 3, 5]
INNERS = [Adam(0.1), Lookahead(AdamW(0.1), 2), from_torch(torch.optim.Adam, lr=0.1)]
each_inner = pytest.mark.parametrize("inner", INNERS, ids=repr)


def grads_at(step: int) -> dict[str, Tensor]:
    return {"a": SCALES[step] * torch.ones(3), "b": SCALES[step] * torch.ones(())}


def run(optimizer: Optimizer, steps: Any, in_place: bool) -> tuple[Any, Any]:
    params = {"a": torch.zeros(3), "b": torch.zeros(())}
    state = optimizer.init(params)
    for step in steps:
        if in_place:
            optimizer.update_(grads_at(step), state, params, 0.1)
        else:
            params, state = optimizer.update(grads_at(step), state, params, 0.1)
    return params, state


@each_inner
@pytest.mark.parametrize("in_place", [False, True])
def test_it_is_as_if_large_gradients_had_not_been(inner: Optimizer, in_place: bool) -> None:
    params, state = run(SkipLargeUpdates(inner, 3.0), range(6), in_place)
    expected, expected_state = run(inner, FINE, in_place)
    assert ft.tree.equal(params, expected)
    assert ft.tree.equal(state["optimizer"], expected_state)
    assert torch.equal(state["skipped"], torch.tensor(3))


@each_inner
def test_an_update_left_out_at_the_very_start(inner: Optimizer) -> None:
    params, state = run(SkipLargeUpdates(inner, 3.0), [1, 0], in_place=False)
    expected, expected_state = run(inner, [0], in_place=False)
    assert ft.tree.equal(params, expected)
    assert ft.tree.equal(state["optimizer"], expected_state)


def test_a_norm_at_the_bound_is_not_above_it() -> None:
    optimizer, params = SkipLargeUpdates(Adam(), 5.0), {"w": torch.zeros(2)}
    for second, skipped in ((4.0, 0), (4.001, 1)):
        grads = {"w": torch.tensor([3.0, second])}
        _, state = optimizer.update(grads, optimizer.init(params), params, 0.1)
        assert state["skipped"] == skipped


def test_the_norm_of_half_precision_gradients_does_not_overflow() -> None:
    params = {"w": torch.zeros(10_000, dtype=torch.float16), "v": torch.zeros(2)}
    grads = {"w": torch.full((10_000,), 1000.0, dtype=torch.float16), "v": torch.zeros(2)}
    for bound, skipped in ((100_001.0, 0), (99_999.0, 1)):
        optimizer = SkipLargeUpdates(Adam(eps=0.1), bound)
        _, state = optimizer.update(grads, optimizer.init(params), params, 0.1)
        assert state["skipped"] == skipped


def test_members_of_a_vmap_are_judged_apart() -> None:
    optimizer = SkipLargeUpdates(Adam(), 3.0)
    params = {"w": torch.zeros(4)}
    state = optimizer.init(params)

    def member(scale: Tensor) -> Any:
        return optimizer.update({"w": scale * torch.ones(4)}, state, params, 0.1)

    updated, states = torch.func.vmap(member)(torch.tensor([1.0, 10.0, float("nan")]))
    torch.testing.assert_close(updated["w"][:, 0], torch.tensor([-0.1, 0.0, 0.0]))
    assert states["skipped"].tolist() == [0, 1, 1]
    assert states["optimizer"]["step"].tolist() == [1, 0, 0]
