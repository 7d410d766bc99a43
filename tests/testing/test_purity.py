"""Values that a step or a loss may keep between calls, and others that it may not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.errors import ImpurityError
from functrain.testing import check_complete, check_loss, check_pure, check_resumes, check_schedule

BATCH = torch.linspace(-1.0, 1.0, 16).reshape(8, 2)


def square(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


class Line(nn.Linear):
    def __init__(self) -> None:
        super().__init__(2, 1)


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


class LazyBuffers(nn.Linear):
    """The same in buffers that are not saved, as bias and position tables often are."""

    grid: Any
    shift: Any

    def __init__(self) -> None:
        super().__init__(2, 1)
        self.register_buffer("grid", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.grid is None or len(self.grid) != len(x):
            self.grid = torch.arange(len(x)).unsqueeze(1) / 8
        if "shift" not in self._buffers:
            self.register_buffer("shift", torch.ones(2), persistent=False)
        return super().forward(x + self.grid + self.shift)


class KeepsItsFirstMask(Line):
    mask: Any

    def forward(self, x: Tensor) -> Tensor:
        if getattr(self, "mask", None) is None:
            self.mask = torch.rand(x.shape[1])
        return super().forward(x * self.mask)


class KeepsItsFirstMaskInABuffer(KeepsItsFirstMask):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", None, persistent=False)


class FillsASavedBuffer(nn.Linear):
    """Takes the shape of its first batch, which goes with the state."""

    mean: Any

    def __init__(self) -> None:
        super().__init__(2, 1)
        self.register_buffer("mean", torch.zeros(0))

    def forward(self, x: Tensor) -> Tensor:
        before = self.mean if self.mean.numel() else torch.zeros_like(x)
        self.mean = 0.9 * before + 0.1 * x
        return super().forward(x - self.mean)


class KeepsItsLastOutput(Line):
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


def program(model: Callable[[], nn.Module] = Line, loss: Any = square) -> ft.Program:
    torch.manual_seed(0)
    return ft.program(model(), loss, ft.optim.SGD(lr=0.1))


@pytest.mark.row(52)
class TestCaches:
    @pytest.mark.parametrize(
        "model", [Lazy, LazyBuffers, FillsASavedBuffer, KeepsItsLastOutput, normed]
    )
    def test_what_any_call_fills_alike_is_pure(self, model: Any) -> None:
        made = program(model)
        check_pure(made, made.init(), BATCH)
        check_loss(square, model(), BATCH)
        checked = ft.checked(program(model))
        checked.train_step(checked.init(), BATCH)
        check_complete(program(model), batch=BATCH)

    def test_a_counter_is_not(self) -> None:
        made = program(CountsForPeople)
        checked = ft.checked(program(CountsForPeople))
        for check in (
            lambda: check_pure(made, made.init(), BATCH),
            lambda: check_loss(square, CountsForPeople(), BATCH),
            lambda: checked.train_step(checked.init(), BATCH),
        ):
            with pytest.raises(ImpurityError, match=r"module\.calls was changed"):
                check()

    @pytest.mark.filterwarnings("ignore::functrain.errors.ModuleStateWarning")
    @pytest.mark.parametrize("model", [KeepsItsFirstMask, KeepsItsFirstMaskInABuffer])
    def test_random_numbers_are_kept_by_a_module_but_not_by_a_program(self, model: Any) -> None:
        with pytest.raises(ImpurityError, match=r"module\.mask was changed"):
            check_loss(square, model(), BATCH)
        made = program(model)
        check_pure(made, made.init(), BATCH)
        checked = ft.checked(program(model))
        checked.train_step(checked.init(), BATCH)
        check_complete(program(model), batch=BATCH)


class AddsHooks(nn.Linear):
    """Adds a hook at its first call, and remembers that it did, as transformers does."""

    def __init__(self) -> None:
        super().__init__(2, 1)
        self.inner = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        if not getattr(self, "hooked", False):
            self.inner.register_forward_hook(
                lambda module, args, output: self.outputs.append(output)
            )
            self.hooked = True
        self.outputs = outputs
        self.inner(x)
        (only,) = outputs
        return super().forward(only)


class AddsAPart(Line):
    """Makes a part of its own at its first call."""

    def forward(self, x: Tensor) -> Tensor:
        if not getattr(self, "ready", False):
            assert "part" not in self._modules
            self.part = nn.Identity()
            self.ready = True
        return super().forward(self.part(x))


class HasCompiledPart(nn.Module):
    def __init__(self, whole: bool = False) -> None:
        super().__init__()
        self.first = torch.compile(nn.Linear(2, 2), backend="eager")
        self.second = nn.Linear(2, 1)
        self.second.compile(backend="eager")

    def forward(self, x: Tensor) -> Any:
        return self.second(self.first(x))


def compiled_as_a_whole() -> Any:
    return torch.compile(nn.Linear(2, 1), backend="eager")


class Refuses(Lazy):
    """Takes no batch but those with a certain sum, and is left half done otherwise."""

    half_done = False

    def forward(self, x: Tensor) -> Tensor:
        if abs(float(x.sum()) - float(BATCH.sum())) > 1e-4:
            self.half_done = True
            raise ValueError("images and texts do not match")
        assert not self.half_done
        return super().forward(x)


@pytest.mark.parametrize(
    "model", [AddsHooks, AddsAPart, HasCompiledPart, compiled_as_a_whole, Refuses]
)
class TestFirstCalls:
    """Values that a first call leaves for later ones are restored completely or not at all."""

    def test_a_first_step_may_be_checked(self, model: Any) -> None:
        torch._dynamo.reset()
        checked = ft.checked(program(model))
        state = checked.init()
        for _ in range(2):
            state, _ = checked.train_step(state, BATCH)
        plain = program(model)
        expected = plain.init()
        for _ in range(2):
            expected, _ = plain.train_step(expected, BATCH)
        assert ft.tree.equal(state, expected)

    def test_a_donated_one_too(self, model: Any) -> None:
        torch._dynamo.reset()
        checked = ft.donated(ft.checked(program(model)))
        checked.train_step(checked.init(), BATCH)

    def test_the_checks_find_nothing(self, model: Any) -> None:
        torch._dynamo.reset()
        made = program(model)
        check_pure(made, made.init(), BATCH)
        if model is not AddsAPart:  # in whose mode it leaves what it adds is noticed
            check_loss(square, model(), BATCH)
        torch._dynamo.reset()
        check_complete(lambda: program(model), batch=BATCH)


def test_generators_are_named_as_the_cause_only_where_they_are() -> None:
    calls: list[int] = []

    def at_the_fourth_call(model: nn.Module, batch: Tensor) -> Tensor:
        calls.append(1)
        return square(model, batch) * (2 if len(calls) >= 4 else 1)

    made = program(loss=at_the_fourth_call)
    with pytest.raises(ImpurityError, match="differs between two calls") as caught:
        check_pure(made, made.init(), BATCH)
    assert "generator" not in str(caught.value)

    def step(state: Any, batch: Tensor) -> Any:
        with torch.random.fork_rng():
            return state, {"loss": torch.rand(())}

    with pytest.raises(ImpurityError, match="depends on the state of a global random generator"):
        check_pure(step, {}, BATCH)


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

    with pytest.raises(ImpurityError, match="depends on the clock"):
        check_schedule(by_the_hour, 4)
