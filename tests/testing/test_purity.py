"""What a step or a loss may keep between calls, and what it may not."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.errors import ImpurityError
from functrain.testing import check_loss, check_pure, check_resumes, check_schedule

BATCH = torch.linspace(-1.0, 1.0, 16).reshape(8, 2)


def square(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


class Lazy(nn.Linear):
    """Fills two caches with constants."""

    grid: Any = None

    def __init__(self) -> None:
        super().__init__(2, 1)
        self.by_length: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if self.grid is None:
            self.grid = torch.linspace(0, 1, x.shape[1])
        if len(x) not in self.by_length:
            self.by_length[len(x)] = torch.arange(len(x)).unsqueeze(1) / 8
        return super().forward(x + self.grid + self.by_length[len(x)])


class KeepsItsFirstMask(nn.Linear):
    mask: Any = None

    def __init__(self) -> None:
        super().__init__(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.mask is None:
            self.mask = torch.rand(x.shape[1])
        return super().forward(x * self.mask)


class KeepsItsLastOutput(nn.Linear):
    def __init__(self) -> None:
        super().__init__(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.output = super().forward(x)
        return self.output


def normed() -> nn.Module:
    """Computes its weight into a plain attribute before each call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.spectral_norm(nn.Linear(2, 1))


class CountsForPeople(nn.Linear):
    def __init__(self) -> None:
        super().__init__(2, 1)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


def running_mean() -> Any:
    """A loss with a mean over all calls, which equal batches do not change."""
    values: list[float] = []

    def loss(model: nn.Module, batch: Tensor) -> ft.Loss:
        value = square(model, batch)
        values.append(float(value))
        return ft.Loss(value, metrics={"mean": torch.tensor(sum(values) / len(values))})

    return loss


def program(model: nn.Module | None = None, loss: Any = square) -> ft.Program:
    torch.manual_seed(0)
    return ft.program(model or nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))


@pytest.mark.row(52)
class TestCaches:
    @pytest.mark.parametrize("model", [Lazy, KeepsItsLastOutput, normed])
    def test_what_any_call_fills_alike_is_pure(self, model: Any) -> None:
        made = program(model())
        check_pure(made, made.init(), BATCH)
        check_loss(square, model(), BATCH)
        checked = ft.checked(program(model()))
        checked.train_step(checked.init(), BATCH)

    @pytest.mark.parametrize(
        ("model", "name"),
        [(KeepsItsFirstMask, "mask"), (CountsForPeople, "calls")],
    )
    def test_one_of_anything_else_is_not(self, model: Any, name: str) -> None:
        made = program(model())
        with pytest.raises(ImpurityError, match=f"module.{name} was changed"):
            check_pure(made, made.init(), BATCH)
        with pytest.raises(ImpurityError, match=f"module.{name} was changed"):
            check_loss(square, model(), BATCH)
        checked = ft.checked(program(model()))
        with pytest.raises(ImpurityError, match=f"module.{name} was changed"):
            checked.train_step(checked.init(), BATCH)


@pytest.mark.row(52)
def test_what_equal_batches_do_not_change_is_noticed() -> None:
    made = program(loss=running_mean())
    with pytest.raises(ImpurityError, match=r"metrics\['mean'\] differs between two calls"):
        check_pure(made, made.init(), BATCH)
    with pytest.raises(ImpurityError, match=r"metrics\['mean'\] differs between two calls"):
        check_loss(running_mean(), nn.Linear(2, 1), BATCH)


def test_a_difference_whose_cause_is_not_seen_says_which_check_names_it() -> None:
    seen: list[int] = []

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        seen.append(1)
        return square(model, batch) * len(seen)

    made = program(loss=loss)
    with pytest.raises(ImpurityError, match="check_complete") as caught:
        check_pure(made, made.init(), BATCH)
    assert all("check_complete" not in finding for finding in caught.value.findings)
    with pytest.raises(AssertionError, match="check_complete"):
        check_resumes((made, [BATCH] * 3), steps=4, cuts=[2])


def test_a_schedule_that_goes_by_the_hour_is_noticed() -> None:
    import time

    def by_the_hour(step: int) -> float:
        return 0.1 if time.localtime().tm_hour < 12 else 0.2

    with pytest.raises(ImpurityError, match=r"depends on the clock \(time.localtime\)"):
        check_schedule(by_the_hour, 4)
