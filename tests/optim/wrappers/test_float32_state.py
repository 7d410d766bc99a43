"""Half-precision parameters: what breaks without a float32 state, and what does not with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.optim import SGD, Adam, AdamW, Optimizer, ScheduleFreeAdamW, from_torch
from functrain.optim.wrappers import Float32State, Lookahead

pytestmark = pytest.mark.row(13)

HALVES = [torch.float16, torch.bfloat16]
each_half = pytest.mark.parametrize("dtype", HALVES, ids=str)
INNERS = [AdamW(0.01), SGD(0.1, momentum=0.9), from_torch(torch.optim.Adam, lr=0.01)]
each_inner = pytest.mark.parametrize("inner", INNERS, ids=repr)
each_kind = pytest.mark.parametrize("master_weights", [False, True])


def draw(seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {"w": torch.randn(4, 3, generator=source).to(dtype)}


def run(
    optimizer: Optimizer, dtype: torch.dtype, steps: int, in_place: bool = False
) -> tuple[dict[str, Tensor], Any]:
    params = draw(0, dtype)
    state = optimizer.init(params)
    for step in range(steps):
        grads = draw(step + 1, dtype)
        if in_place:
            optimizer.update_(grads, state, params, 0.01)
        else:
            params, state = optimizer.update(grads, state, params, 0.01)
    return params, state


def trained_on_small_gradients(optimizer: Optimizer, in_place: bool) -> float:
    params = {"w": torch.ones(1, dtype=torch.float16)}
    state = optimizer.init(params)
    for _ in range(100):
        grads = {"w": torch.full((1,), 1e-4, dtype=torch.float16)}
        if in_place:
            optimizer.update_(grads, state, params, 0.01)
        else:
            params, state = optimizer.update(grads, state, params, 0.01)
    return params["w"].item()


@pytest.mark.parametrize("in_place", [False, True])
def test_adam_in_float16_breaks_and_with_a_float32_state_does_not(in_place: bool) -> None:
    # 100 steps of 0.01 lead from 1 to 0. The square of a gradient of 1e-4 is 0 in float16, and in
    # the rule so is eps.
    assert not abs(trained_on_small_gradients(Adam(), in_place)) < 1
    assert abs(trained_on_small_gradients(Float32State(Adam()), in_place)) < 0.05
    assert abs(trained_on_small_gradients(Float32State(Adam(), True), in_place)) < 1e-3


@each_half
@each_inner
def test_master_weights_are_those_of_training_in_float32(
    dtype: torch.dtype, inner: Optimizer
) -> None:
    params, state = run(Float32State(inner, master_weights=True), dtype, 20)
    expected = {"w": draw(0, dtype)["w"].float()}
    expected_state = inner.init(expected)
    for step in range(20):
        grads = {"w": draw(step + 1, dtype)["w"].float()}
        expected, expected_state = inner.update(grads, expected_state, expected, 0.01)
    assert ft.tree.equal(state["master"], expected)
    assert ft.tree.equal(state["optimizer"], expected_state)
    assert torch.equal(params["w"], expected["w"].to(dtype))


@each_half
@each_inner
def test_without_them_each_update_is_one_in_float32_rounded(
    dtype: torch.dtype, inner: Optimizer
) -> None:
    params, state = run(Float32State(inner), dtype, 5)
    expected = draw(0, dtype)
    expected_state = inner.init({"w": expected["w"].float()})
    for step in range(5):
        grads, wide = {"w": draw(step + 1, dtype)["w"].float()}, {"w": expected["w"].float()}
        wide, expected_state = inner.update(grads, expected_state, wide, 0.01)
        expected = {"w": wide["w"].to(dtype)}
    assert ft.tree.equal(params, expected)
    assert ft.tree.equal(state["optimizer"], expected_state)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("master_weights", "moved"), [(False, 0.0), (True, 0.1)])
def test_updates_below_the_resolution_add_up_in_master_weights(
    in_place: bool, master_weights: bool, moved: float
) -> None:
    optimizer = Float32State(SGD(1e-4), master_weights)
    params = {"w": torch.ones(2, dtype=torch.bfloat16)}
    state, grads = optimizer.init(params), {"w": torch.ones(2, dtype=torch.bfloat16)}
    for _ in range(1000):
        if in_place:
            optimizer.update_(grads, state, params, 1e-4)
        else:
            params, state = optimizer.update(grads, state, params, 1e-4)
    assert torch.equal(params["w"], torch.full((2,), 1 - moved, dtype=torch.bfloat16))


@each_half
@each_inner
@each_kind
def test_the_kernel_writes_into_params_and_state(
    dtype: torch.dtype, inner: Optimizer, master_weights: bool
) -> None:
    optimizer = Float32State(inner, master_weights)
    params, state = run(optimizer, dtype, 1, in_place=True)
    held = [leaf for _, leaf in ft.tree.items([params, state]) if isinstance(leaf, Tensor)]
    addresses = [leaf.data_ptr() for leaf in held]
    before = params["w"].clone()
    optimizer.update_(draw(2, dtype), state, params, 0.01)
    assert not torch.equal(params["w"], before)
    held = [leaf for _, leaf in ft.tree.items([params, state]) if isinstance(leaf, Tensor)]
    assert [leaf.data_ptr() for leaf in held] == addresses
    assert all(leaf.dtype != dtype for _, leaf in ft.tree.items(state) if isinstance(leaf, Tensor))


@each_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=str)
def test_wider_leaves_pass_through_uncopied(dtype: torch.dtype, master_weights: bool) -> None:
    seen = []

    class Spy:
        lr, lazy_state = 0.1, False
        init = bind = trained = eval_params = update = update_ = lambda *given: seen.append(given)

    optimizer, leaf = Float32State(Spy(), master_weights), torch.ones(2, dtype=dtype)  # type: ignore[arg-type]
    state = {"optimizer": {}, **({"master": {}} if master_weights else {})}
    optimizer.update_({"w": leaf}, state, {"w": leaf}, 0.1)
    _, grads, _, params, _ = seen[0]
    assert grads["w"] is leaf
    assert params["w"] is leaf


@each_kind
@pytest.mark.parametrize("inner", [ScheduleFreeAdamW(0.01), Lookahead(SGD(0.1), 3)], ids=repr)
def test_averaged_weights_are_rounded(inner: Optimizer, master_weights: bool) -> None:
    optimizer = Float32State(inner, master_weights)
    params, state = run(optimizer, torch.bfloat16, 5)
    averaged = optimizer.eval_params(state, params)["w"]
    wide = state["master"] if master_weights else {"w": params["w"].float()}
    expected = inner.eval_params(state["optimizer"], wide)["w"]
    assert averaged.dtype == torch.bfloat16
    assert not torch.equal(averaged, params["w"])
    assert torch.equal(averaged, expected.to(torch.bfloat16))


@each_kind
def test_weights_that_are_not_averaged_are_the_params(master_weights: bool) -> None:
    optimizer = Float32State(AdamW(), master_weights)
    params, state = run(optimizer, torch.bfloat16, 1)
    assert optimizer.eval_params(state, params) is params


def test_parameters_put_in_later_become_the_master_weights() -> None:
    params, state = run(Float32State(SGD(), master_weights=True), torch.bfloat16, 1)
    other = {"w": torch.zeros_like(params["w"])}
    updated, after = Float32State(SGD(), master_weights=True).update({}, state, other, 0.1)
    assert ft.tree.equal(updated, other)
    assert not after["master"]["w"].any()


@each_half
@each_kind
def test_a_program_of_a_half_precision_model_learns(
    dtype: torch.dtype, master_weights: bool
) -> None:
    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return (model(batch.to(dtype)).float() - 1).square().mean()

    torch.manual_seed(0)
    optimizer = Float32State(AdamW(0.01), master_weights)
    program = ft.program(nn.Linear(3, 1).to(dtype), loss, optimizer)
    state, batch = program.init(), torch.randn(8, 3)
    first = program.eval_step(state, batch)["loss"]
    for _ in range(200):
        state, _ = program.train_step(state, batch)
    assert program.eval_step(state, batch)["loss"] < first / 10
    assert state.params["weight"].dtype == dtype
    assert state.optimizer["optimizer"]["exp_avg"]["weight"].dtype == torch.float32
