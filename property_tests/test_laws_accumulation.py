"""Laws of accumulation and clipping: micro-batches equal one batch in plain PyTorch."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from trying import tried

import functrain as ft
from functrain.core.batch_splitting import MicroBatches

BOUNDS = {"rtol": 1e-6, "atol": 1e-9}


def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def loss(model: nn.Module, batch: Any) -> ft.Loss:
    x, y, weight = batch
    each = F.cross_entropy(model(x), y, reduction="none")
    return ft.Loss((each * weight).sum() / weight.sum(), weight=weight.sum())


def batch(seed: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (size,), generator=generator)
    return x, y, torch.rand(size, generator=generator, dtype=torch.float64) + 0.1


def joined(parts: list[Any]) -> Any:
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


sizes = st.lists(st.integers(1, 6), min_size=1, max_size=4)
clips = st.sampled_from([None, 0.01, 0.1, 10.0])


@attrs.frozen
class Plain:
    """The same steps in plain PyTorch."""

    clip_norm: float | None
    clip_value: float | None
    optimizer: Any

    def run(self, steps: list[Any]) -> tuple[dict[str, Tensor], list[float], list[float]]:
        own = model()
        optimizer, losses, norms = self.optimizer(own.parameters()), [], []
        for each in steps:
            optimizer.zero_grad()
            value = loss(own, each).value
            value.backward()
            bound = torch.inf if self.clip_norm is None else self.clip_norm
            norms.append(nn.utils.clip_grad_norm_(own.parameters(), bound).item())
            if self.clip_value is not None:
                nn.utils.clip_grad_value_(own.parameters(), self.clip_value)
            optimizer.step()
            losses.append(value.item())
        return {name: value.detach() for name, value in own.named_parameters()}, losses, norms


@pytest.mark.row(5)
@pytest.mark.row(6)
@tried(150)
@given(steps=st.lists(sizes, min_size=1, max_size=3), clip_norm=clips, clip_value=clips)
def test_micro_batches_are_one_batch_of_plain_pytorch(
    steps: list[list[int]], clip_norm: float | None, clip_value: float | None
) -> None:
    parts = [[batch(9 * k + j, n) for j, n in enumerate(row)] for k, row in enumerate(steps)]
    options: dict[str, Any] = {"clip_norm": clip_norm, "clip_value": clip_value}
    program = ft.program(model(), loss, ft.optim.AdamW(lr=0.1), accumulate=4, **options)
    state, found = program.init(), []
    for row in parts:
        state, metrics = program.train_step(state, MicroBatches(row))
        found.append(metrics)
    plain = Plain(clip_norm, clip_value, lambda own: torch.optim.AdamW(own, lr=0.1))
    params, losses, norms = plain.run([joined(row) for row in parts])
    torch.testing.assert_close(dict(state.params), params, **BOUNDS)
    torch.testing.assert_close([each["loss"].item() for each in found], losses, **BOUNDS)
    torch.testing.assert_close([each["grad_norm"].item() for each in found], norms, **BOUNDS)
    counted = state.counters.step, state.counters.batch, state.counters.samples
    assert counted == (len(steps), sum(map(len, steps)), sum(map(sum, steps)))


@pytest.mark.row(5)
@tried(100)
@given(size=st.integers(1, 9), parts=st.integers(1, 5), clip_norm=clips)
def test_a_split_batch_equals_the_whole(size: int, parts: int, clip_norm: float | None) -> None:
    found = []
    for accumulate in (1, parts):
        options: dict[str, Any] = {"accumulate": accumulate, "clip_norm": clip_norm}
        program = ft.program(model(), loss, ft.optim.SGD(lr=0.1, momentum=0.9), **options)
        state, metrics = program.train_step(program.init(), batch(size, size))
        found.append((dict(state.params), metrics["loss"], metrics["grad_norm"]))
        assert (state.counters.step, state.counters.samples) == (1, size)
    torch.testing.assert_close(*found, **BOUNDS)


@pytest.mark.row(9)
@tried(60)
@given(
    decay=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    every=st.integers(1, 3),
    warmup=st.booleans(),
    count=st.integers(1, 8),
)
def test_the_average_equals_a_plain_loop(
    decay: float, every: int, warmup: bool, count: int
) -> None:
    average = ft.EMA(decay, every=every, warmup=warmup)
    program = ft.program(model(), loss, ft.optim.SGD(lr=0.5), ema=average)
    state = program.init()
    expected, updates = dict(state.params), 0
    for step in range(1, count + 1):
        state, _ = program.train_step(state, batch(step, 3))
        if step % every:
            continue
        kept = min(decay, (1 + updates) / (10 + updates)) if warmup else decay
        kept = kept if updates else 0.0  # the first update copies
        updates += 1
        expected = {
            path: kept * old + (1 - kept) * state.params[path] for path, old in expected.items()
        }
    assert state.ema is not None
    torch.testing.assert_close(dict(state.ema["params"]), expected, rtol=1e-12, atol=1e-14)
    assert state.ema["updates"].item() == updates


def test_the_defaults_of_an_average() -> None:
    assert ft.EMA() == ft.EMA(0.999, every=1, warmup=False)


@pytest.mark.row(8)
@tried(40)
@given(size=st.integers(2, 9), parts=st.integers(1, 4))
def test_gradients_are_divided_by_the_loss_scale(size: int, parts: int) -> None:
    x, y, weight = batch(size, size)
    single, norms = (x.float(), y, weight.float()), []
    for options in ({"precision": "fp16", "accumulate": parts}, {}):
        program = ft.program(model().float(), loss, ft.optim.SGD(lr=0.1), **options)
        _, metrics = program.train_step(program.init(), single)
        norms.append(metrics["grad_norm"])
    torch.testing.assert_close(*norms, rtol=2e-2, atol=1e-3)
