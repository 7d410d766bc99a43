"""The seed of a run: what follows from it, and the warning where nothing does."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.checkpoint import read_manifest
from functrain.errors import FunctrainWarning

X = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 2)


def fitted(seed: int | None, model: Any, data: Any, **options: Any) -> ft.Run:
    program = ft.program(model, loss, ft.optim.SGD(lr=0.1))
    return ft.fit(program, data, until="2 epochs", seed=seed, **options)


def test_batches_without_a_seed_take_the_one_of_the_run() -> None:
    own = ft.data.Batches(X, 8)
    found = [fitted(seed, plain(), own).history["loss"] for seed in (1, 2)]
    assert found[0] != found[1]
    for seed, losses in enumerate(found, 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FunctrainWarning)
            given = fitted(seed, plain(), ft.data.Batches(X, 8, seed=seed))
        assert given.history["loss"] == losses
    assert torch.equal(own[1, 2], ft.data.Batches(X, 8, seed=0)[1, 2])


def test_a_loop_of_ones_own_and_a_resumed_run_draw_the_same(tmp_path: Path) -> None:
    program, data = ft.program(plain(), loss, ft.optim.SGD(lr=0.1)), ft.data.Batches(X, 8)
    run = ft.fit(program, data, until="2 epochs", seed=3)
    found = [float(metrics["loss"]) for _, metrics in _steps(program, data)]
    assert found == run.history["loss"]
    ft.fit(program, data, until="5 steps", seed=3, directory=tmp_path)
    resumed = ft.fit(program, data, until="2 epochs", directory=tmp_path)
    assert ft.tree.equal(resumed.state, run.state)
    info = read_manifest(ft.Checkpoints(tmp_path).path(8)).info
    assert info["data"]["seed"] == 3


def _steps(program: ft.Program, data: Any) -> Any:
    return ft.iterate(program, program.init(seed=3), data, until="2 epochs")


def test_a_run_of_an_earlier_version_keeps_the_order_that_it_had(tmp_path: Path) -> None:
    """Then the seed of the data was 0, whatever the run's was, and the record says so."""
    program = ft.program(plain(), loss, ft.optim.SGD(lr=0.1))
    state, sets = program.init(seed=3), ft.data.Batches(X, 16)
    before = ft.data.Batches(X, 8, seed=0)
    whole = ft.fit(program, before, until="2 epochs", state=state)
    ft.fit(program, before, until="5 steps", state=state, directory=tmp_path, eval_data=sets)
    info = read_manifest(ft.Checkpoints(tmp_path).path(5)).info
    assert info["eval_data"]["eval"]["seed"] == 0
    after = ft.data.Batches(X, 8)
    resumed = ft.fit(program, after, until="2 epochs", directory=tmp_path, eval_data=sets)
    assert ft.tree.equal(resumed.state, whole.state)


@pytest.mark.parametrize(
    ("model", "data", "idle"),
    [
        (plain, [X], True),
        (plain, ft.data.Batches(X, 8, seed=0), True),
        (plain, ft.data.Batches(X, 8, shuffle=False), True),
        (plain, ft.data.Batches(X, 8), False),
        (lambda: plain, [X], False),
        (lambda: nn.Sequential(plain(), nn.Dropout()), [X], False),
    ],
)
def test_a_seed_without_any_effect_is_reported(
    model: Callable[[], Any], data: Any, idle: bool
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FunctrainWarning)
        fitted(5, model(), data)
        fitted(None, model(), data)
    told = [str(each.message) for each in caught if "seed=5 changed nothing" in str(each.message)]
    assert len(told) == idle
