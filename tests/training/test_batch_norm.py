"""Statistics of batch norms under averaged weights: those of torch, and a state that is kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import swa_utils

import functrain as ft
from functrain import tree
from functrain.errors import ConfigurationError, EmptyDatasetError, UnsupportedError

X = 3 + torch.randn(60, 2, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=0.01))
    return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), inner, nn.Linear(4, 1))


def loss(model: nn.Module, batch: Any) -> Tensor:
    return (model(batch) - batch.sum(1, keepdim=True)).square().mean()


def data() -> Any:
    return ft.data.Batches(X, 16, shuffle=False)


def trained(**options: Any) -> tuple[ft.Program, ft.TrainState]:
    program = ft.program(net(), loss, ft.optim.SGD(lr=0.05), ema=ft.SWA(start=3), **options)
    return program, ft.fit(program, data(), until="3 epochs", progress=False).state


def by_hand() -> swa_utils.AveragedModel:
    model = net()
    averaged = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_swa_multi_avg_fn())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step, batch in enumerate(X.split(16) * 3, start=1):
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
        if step >= 3:
            averaged.update_parameters(model)
    swa_utils.update_bn(X.split(16), averaged)
    return averaged.eval()


def test_they_are_those_of_torch() -> None:
    program, state = trained()
    before, generator = ft.copy(state), torch.get_rng_state()
    found = ft.update_bn(program, state, data())
    assert tree.equal(state, before)
    assert torch.equal(torch.get_rng_state(), generator)
    expected = by_hand()
    for path, buffer in expected.module.named_buffers():
        torch.testing.assert_close(found.buffers[path], buffer)
        assert not torch.equal(found.buffers[path], state.buffers[path])
    outputs = ft.predict(program, found, [X], weights="ema")
    torch.testing.assert_close(outputs, expected(X).detach())


def test_everything_else_stays_and_shares_no_memory() -> None:
    program, state = trained()
    found = ft.update_bn(program, state, data())
    for part in ("params", "optimizer", "ema", "rng", "counters"):
        assert tree.equal(getattr(found, part), getattr(state, part))
    later, _ = ft.donated(program).train_step(ft.copy(found), X[:16])
    assert later.counters.step == state.counters.step + 1
    raw = ft.update_bn(program, state, data(), weights="params")
    assert not tree.equal(raw.buffers, found.buffers)


def test_batches_of_another_form_need_a_function() -> None:
    program, state = trained()
    expected = ft.update_bn(program, state, data())
    rows = [{"x": batch} for batch in X.split(16)]
    assert tree.equal(ft.update_bn(program, state, rows, lambda m, b: m(b["x"])), expected)
    pairs = [(batch, batch) for batch in X.split(16)]
    assert tree.equal(ft.update_bn(program, state, pairs), expected)
    with pytest.raises(ConfigurationError, match="Say how to call the model: function="):
        ft.update_bn(program, state, rows)


def test_what_has_no_statistics_or_data_is_refused() -> None:
    program, state = trained()
    with pytest.raises(EmptyDatasetError, match="update_bn"):
        ft.update_bn(program, state, [X[:0]])
    with pytest.raises(UnsupportedError, match="the state comes first"):
        ft.update_bn(program, data(), state)  # type: ignore[arg-type]
    plain = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1), ema=0.9)
    with pytest.raises(ConfigurationError, match="no batch norm"):
        ft.update_bn(plain, plain.init(), data())
    alone = ft.program(net(), loss, ft.optim.SGD(lr=0.1))
    with pytest.raises(ConfigurationError, match="keeps no average"):
        ft.update_bn(alone, alone.init(), data())
