"""Laws of a run: means, kept states, randomness, skipped steps."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recipes import trainable
from test_laws_accumulation import batch, joined, loss, model
from torch import Tensor, nn
from trying import tried

import functrain as ft
from functrain import tree
from functrain.testing.strategies import Case

sizes = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@pytest.mark.row(24)
@tried(60)
@given(sizes=sizes, seed=st.integers(0, 9))
def test_an_evaluation_weighs_every_sample_alike(sizes: list[int], seed: int) -> None:
    program = ft.program(model(), loss, ft.optim.SGD(lr=0.1))
    state, parts = program.init(seed), [batch(seed + k, size) for k, size in enumerate(sizes)]
    found = ft.evaluate(program, state, parts)
    expected = program.eval_step(state, joined(parts))
    assert math.isclose(found["loss"], expected["loss"].item(), rel_tol=1e-9)


@pytest.mark.row(24)
@tried(40)
@given(sizes=sizes)
def test_the_mean_of_an_epoch_weighs_its_steps_by_their_samples(sizes: list[int]) -> None:
    program = ft.program(model(), loss, ft.optim.SGD(lr=0.1))
    data = [batch(k, size) for k, size in enumerate(sizes)]
    rows = ft.fit(program, data, until="2 epochs").history.rows
    for epoch in (rows[: len(sizes)], rows[len(sizes) :]):
        total = sum(row["loss"] * size for row, size in zip(epoch, sizes, strict=True))
        assert math.isclose(epoch[-1]["epoch/loss"], total / sum(sizes), rel_tol=1e-9)


@attrs.define
class Holder:
    """Keep every state, and a copy of its values at that time."""

    held: list[tuple[ft.TrainState, ft.TrainState]] = attrs.field(factory=list)

    def on_batch_end(self, event: ft.BatchEnd) -> None:
        self.held.append((event.state, ft.copy(event.state)))


@pytest.mark.row(51)
@tried(25)
@given(case=trainable())
def test_held_states_keep_their_values(case: Case) -> None:
    keeping, data = Holder(), [case.batch(k, 4) for k in range(2)]
    run = ft.fit(case.program(), data, until="4 steps", listeners=[keeping])
    alone = ft.fit(case.program(), data, until="4 steps")
    for held, copied in keeping.held:
        assert tree.diff(held, copied) == []
    assert tree.diff(run.state, alone.state) == []


def _noise(model: nn.Module, _: Any) -> Tensor:
    return model(torch.rand(64, 2).sum(0)).sum()


@tried(60)
@given(seed=st.integers(0, 2**63 - 1), steps=st.integers(2, 5))
def test_every_step_draws_different_numbers(seed: int, steps: int) -> None:
    linear = nn.Linear(2, 1, bias=False)
    program = ft.program(linear, _noise, ft.optim.SGD(lr=0.0))
    state, other, losses = program.init(seed), program.init(seed ^ 1), []
    for _ in range(steps):
        before = state
        state, metrics = program.train_step(state, torch.zeros(3))
        _, again = program.train_step(before, torch.zeros(3))
        other, others = program.train_step(other, torch.zeros(3))
        assert again["loss"] == metrics["loss"]
        losses += [metrics["loss"].item(), others["loss"].item()]
    assert len(set(losses)) == 2 * steps


@pytest.mark.row(10)
@tried(80)
@given(bad=st.lists(st.sampled_from([None, math.nan, math.inf]), min_size=1, max_size=5))
def test_skipped_steps_leave_no_trace(bad: list[float | None]) -> None:
    program = ft.program(model(), loss, ft.optim.AdamW(lr=0.1), nonfinite="skip", ema=0.9)
    state, expected = program.init(), program.init()
    for number, value in enumerate(bad):
        x, *rest = batch(number, 3)
        fed = x if value is None else torch.full_like(x, value)
        state, _ = program.train_step(state, (fed, *rest))
        if value is None:
            expected, _ = program.train_step(expected, (x, *rest))
    parts = ("params", "buffers", "optimizer", "ema")
    assert tree.diff(*([getattr(one, p) for p in parts] for one in (state, expected))) == []
    assert state.counters.skipped.item() == len(bad) - bad.count(None)


def _added(model: nn.Module, batch: Any) -> Tensor:
    return model.weight.square().sum() + batch["added"].sum()


def _rooted(model: nn.Module, batch: Any) -> Tensor:
    return (model.weight * batch["added"].sum()).sqrt().sum()


@pytest.mark.row(10)
@pytest.mark.parametrize(
    ("loss", "added"), [(_added, math.inf), (_added, math.nan), (_rooted, 0.0)]
)
def test_a_nonfinite_loss_or_gradient_is_enough(loss: Any, added: float) -> None:
    program = ft.program(nn.Linear(2, 1, bias=False), loss, ft.optim.SGD(lr=0.1), nonfinite="skip")
    state, batch = program.init(), {"added": torch.full((1,), added)}
    after, metrics = program.train_step(state, batch)
    assert metrics["loss"].isfinite() != metrics["grad_norm"].isfinite()
    assert tree.diff(state.params, after.params) == []
    assert after.counters.skipped.item() == 1
