"""Means of parameters: which steps count, also where steps are skipped."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from compiling import CountingBackend, assert_close
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_swa_multi_avg_fn

import functrain as ft
from functrain import tree

STEPS = 12
SKIPPED = {2, 4, 5, 9}
AVERAGES = [(1, 1), (6, 1), (6, 3), (9, 1), (9, 3), (100, 10)]


def module() -> nn.Module:
    return nn.Linear(2, 1).double()


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, factor = batch
    return (model(x) - 1).square().mean() * factor.mean()


def batch(step: int) -> tuple[Tensor, Tensor]:
    x = torch.arange(8, dtype=torch.float64).view(4, 2).roll(step) / 8
    return x, torch.full((4, 1), float("nan") if step in SKIPPED else 1.0).double()


def program(swa: ft.SWA) -> ft.Program:
    return ft.program(module, loss, ft.optim.SGD(lr=0.1), ema=swa, nonfinite="skip")


def by_torch(swa: ft.SWA, params: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return the average after each step of ordinary PyTorch; a copy before the first."""
    model = module()
    model.load_state_dict(params)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    averaged = AveragedModel(model, multi_avg_fn=get_swa_multi_avg_fn())
    found = []
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        value = loss(model, batch(step))
        value.backward()
        if value.isfinite():
            optimizer.step()
            if step >= swa.start and step % swa.every == 0:
                averaged.update_parameters(model)
        source = averaged.module if averaged.n_averaged else model
        found.append({path: param.detach().clone() for path, param in source.named_parameters()})
    return found


@pytest.mark.parametrize(
    "transform",
    [
        lambda program: program,
        ft.donated,
        lambda program: ft.compiled(program, backend=CountingBackend()),
        lambda program: ft.donated(ft.compiled(program, backend=CountingBackend())),
    ],
    ids=["pure", "donated", "compiled", "compiled and donated"],
)
@pytest.mark.parametrize(("start", "every"), AVERAGES)
def test_the_steps_that_count_are_those_of_pytorch(start: int, every: int, transform: Any) -> None:
    swa = ft.SWA(start=start, every=every)
    made = transform(program(swa))
    state = made.init()
    expected = by_torch(swa, dict(state.params))
    for step in range(1, STEPS + 1):
        state, _ = made.train_step(state, batch(step))
        torch.testing.assert_close(dict(state.ema["params"]), expected[step - 1])


@pytest.mark.parametrize("compiled", [False, True])
def test_members_of_a_population_skip_by_themselves(compiled: bool) -> None:
    def diverging(model: nn.Module, given: tuple[Tensor, Tensor]) -> Tensor:
        value = loss(model, given)
        return value * torch.where(value > 1e3, float("nan"), 1.0)

    made = [
        ft.program(module, diverging, ft.optim.SGD(lr), ema=ft.SWA(start=6), nonfinite="skip")
        for lr in (0.1, 50.0)
    ]
    both = ft.population(made[0], {"lr": [0.1, 50.0]}, seeds=[0, 0])
    both = ft.compiled(both, backend=CountingBackend()) if compiled else both
    state, alone = both.init(), [one.init(0) for one in made]
    for step in range(1, STEPS + 1):
        state, _ = both.train_step(state, batch(step))
        alone = [one.train_step(own, batch(step))[0] for one, own in zip(made, alone, strict=True)]
    assert alone[0].counters.skipped != alone[1].counters.skipped
    for index, own in enumerate(alone):
        assert_close(both.member(state, index).ema, own.ema, rtol=1e-12, atol=0)


def test_another_every_in_a_resumed_run_averages_what_follows(tmp_path: Path) -> None:
    data = ft.data.Batches(batch(1)[0].repeat(5, 1), 2, shuffle=False)

    def run(every: int, until: int) -> ft.Run:
        plain = lambda model, x: (model(x) - 1).square().mean()  # noqa: E731
        swa = ft.SWA(start=15, every=every)
        made = ft.program(module, plain, ft.optim.SGD(lr=0.1), ema=swa)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ft.errors.RecipeChangedWarning)
            return ft.fit(made, data, until=f"{until} steps", directory=tmp_path, progress=False)

    run(5, 10)
    found = [run(1, until).state for until in range(15, 21)]
    mean = {
        path: torch.stack([state.params[path] for state in found]).mean(0)
        for path in found[0].params
    }
    torch.testing.assert_close(dict(found[-1].ema["params"]), mean)


def test_an_average_that_stays_keeps_its_bytes() -> None:
    swa = ft.SWA(every=2)
    state = swa.update(swa.init({"w": torch.tensor([-0.0, 1.0])}), {"w": torch.tensor([-0.0, 1])})
    given = {"w": torch.tensor([float("inf"), float("nan")])}
    for due in (False, torch.tensor(False)):
        assert tree.diff(swa.update(state, given, due), state) == []
