"""A step that depends on more than state and batch is found, with what it changed."""

from __future__ import annotations

import datetime
import functools
import itertools
import os
import random
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.errors import IncompleteError
from functrain.testing import check_complete

BATCH = torch.linspace(-1.0, 1.0, 16).reshape(8, 2)
COUNTER = itertools.count(1)
LOCAL = threading.local()


class Centering(nn.Module):
    """A criterion with a buffer, outside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(1))

    def forward(self, output: Tensor) -> Tensor:
        self.center.mul_(0.9).add_(output.detach().mean(0), alpha=0.1)
        return (output - self.center).square().mean()

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return self(model(batch))


CRITERION = Centering()


def square(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


def program(loss: Any = square, model: nn.Module | None = None, **options: Any) -> ft.Program:
    torch.manual_seed(0)
    optimizer = options.get("optimizer") or ft.optim.SGD(lr=options.get("lr", 0.1))
    return ft.program(model or nn.Linear(2, 1), loss, optimizer)


# -- what the system tells ---------------------------------------------------------------------


def by_datetime(model: nn.Module, batch: Tensor) -> Tensor:
    return square(model, batch) * (1 + datetime.datetime.now().microsecond)


def by_the_date(model: nn.Module, batch: Tensor) -> Tensor:
    return square(model, batch) * datetime.date.today().day


def by_the_process(model: nn.Module, batch: Tensor) -> Tensor:
    return square(model, batch) * os.getpid()


def by_random_bytes(model: nn.Module, batch: Tensor) -> Tensor:
    return square(model, batch) * (1 + uuid.uuid4().int % 97)


def by_the_random_of_the_system(model: nn.Module, batch: Tensor) -> Tensor:
    return square(model, batch) * random.SystemRandom().random()


# -- what code keeps ---------------------------------------------------------------------------


def counts_in_a_keyword(model: nn.Module, batch: Tensor, *, seen: dict[str, int] = {"n": 0}) -> Any:  # noqa: B006
    seen["n"] += 1
    return square(model, batch) * seen["n"]


def counts_in_an_iterator(model: nn.Module, batch: Tensor) -> Tensor:
    return square(model, batch) * next(COUNTER)


def counts_in_a_thread_local(model: nn.Module, batch: Tensor) -> Tensor:
    LOCAL.calls = getattr(LOCAL, "calls", 0) + 1
    return square(model, batch) * LOCAL.calls


def centers_by_a_global(model: nn.Module, batch: Tensor) -> Tensor:
    return CRITERION(model(batch))


def centers_by_a_closure() -> Any:
    criterion = Centering()
    return lambda model, batch: criterion(model(batch))


def counts(kept: dict[str, int], model: nn.Module, batch: Tensor) -> Tensor:
    kept["calls"] += 1
    return square(model, batch) * kept["calls"]


@functools.lru_cache
def drawn_once(size: int) -> float:
    return float(torch.rand(()))


def scales_by_what_was_drawn_once(model: nn.Module, batch: Tensor) -> Tensor:
    return square(model, batch) * drawn_once(len(batch))


class CountsInItsClass(nn.Linear):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        CountsInItsClass.calls += 1
        return super().forward(x) * self.calls


class KeepsItsFirstMean(nn.Linear):
    mean: Any = None

    def forward(self, x: Tensor) -> Tensor:
        if self.mean is None:
            self.mean = x.mean(0)
        return super().forward(x - self.mean)


class Running:
    """A mean over all calls, which equal batches do not change."""

    total, count = 0.0, 0

    def __call__(self, value: Tensor) -> float:
        self.total += float(value)
        self.count += 1
        return self.total / self.count


def reports_a_running_mean() -> Any:
    running = Running()

    def loss(model: nn.Module, batch: Tensor) -> ft.Loss:
        value = square(model, batch)
        return ft.Loss(value, metrics={"mean": torch.tensor(running(value))})

    return loss


class LatestStep:
    """A schedule that remembers the latest step it was asked for."""

    def __init__(self) -> None:
        self.latest = -1

    def __call__(self, step: int) -> float:
        self.latest = max(self.latest, step)
        return 0.1 / (1 + self.latest)


class Momentum(ft.optim.Optimizer):
    """Moments kept on the optimizer."""

    lr = 0.1

    def __init__(self) -> None:
        self.moments: dict[str, Any] = {}

    def init(self, params: Any) -> Any:
        return {}

    def update(self, grads: Any, state: Any, params: Any, lr: Any) -> Any:
        own = dict(params)
        self.update_(grads, state, own, lr)
        return own, state

    def update_(self, grads: Any, state: Any, params: Any, lr: Any) -> None:
        for path, grad in grads.items():
            self.moments[path] = 0.9 * self.moments.get(path, 0.0) + grad
            params[path].sub_(lr * self.moments[path])


# A program, the condition, and the place that a step changed, if comparing shows it.
FOUND: list[tuple[Callable[[], ft.Program], str, str]] = [
    (lambda: program(by_datetime), "repeated", ""),
    (lambda: program(by_random_bytes), "repeated", ""),
    (lambda: program(by_the_random_of_the_system), "repeated", ""),
    (lambda: program(counts_in_a_keyword), "repeated", "counts_in_a_keyword: seen['n']"),
    (lambda: program(counts_in_an_iterator), "repeated", ""),
    (lambda: program(counts_in_a_thread_local), "repeated", "LOCAL.calls"),
    (lambda: program(centers_by_a_global), "repeated", "CRITERION.center"),
    (lambda: program(centers_by_a_closure()), "repeated", "criterion.center"),
    (lambda: program(Centering().loss), "repeated", "loss.self.center"),
    (lambda: program(functools.partial(counts, {"calls": 0})), "repeated", "loss.args[0]['calls']"),
    (lambda: program(model=CountsInItsClass(2, 1)), "repeated", "CountsInItsClass.calls"),
    (lambda: program(reports_a_running_mean()), "other steps", "running.total"),
    (lambda: program(lr=LatestStep()), "other steps", "optimizer.lr.latest"),
    (lambda: program(lr=lambda step: random.random()), "generators", ""),
    (lambda: program(optimizer=Momentum()), "repeated", "optimizer.moments['weight']"),
    (
        lambda: program(optimizer=ft.optim.Lookahead(Momentum(), sync_period=2)),
        "repeated",
        "optimizer.optimizer.moments['weight']",
    ),
]


@pytest.mark.row(58)
@pytest.mark.parametrize(("make", "condition", "place"), FOUND)
def test_what_code_keeps_is_named(
    make: Callable[[], ft.Program], condition: str, place: str
) -> None:
    with pytest.raises(IncompleteError) as caught:
        check_complete(make(), batch=BATCH)
    assert condition in caught.value.condition
    assert caught.value.leaf.startswith(("new_state.", "metrics["))
    assert any(each.endswith(place) for each in caught.value.changed) or not place


# -- caches that are pure ----------------------------------------------------------------------


@functools.lru_cache
def table(size: int) -> Tensor:
    return torch.arange(size).float()


TABLE: Any = None


def adds_tables(model: nn.Module, batch: Tensor) -> Tensor:
    global TABLE
    if TABLE is None:
        TABLE = torch.ones(2)
    return square(model, batch + TABLE + table(2))


@pytest.mark.filterwarnings("ignore::functrain.errors.ModuleStateWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: program(adds_tables),
        lambda: program(lambda model, batch: nn.MSELoss()(model(batch), batch[:, :1])),
        lambda: program(model=KeepsItsFirstMean(2, 1)),
    ],
)
def test_a_cache_of_constants_is_left_alone(make: Callable[[], ft.Program]) -> None:
    check_complete(make(), batch=BATCH)


# -- what only a fresh process shows -----------------------------------------------------------


def drawing_once() -> ft.Program:
    return program(scales_by_what_was_drawn_once)


def adding_tables() -> ft.Program:
    return program(adds_tables)


def going_by_the_date() -> ft.Program:
    return program(by_the_date)


def going_by_the_process() -> ft.Program:
    return program(by_the_process)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("make", "condition"),
    [
        (drawing_once, "after other steps"),
        (going_by_the_date, "in another time zone"),
        (going_by_the_process, "in another process"),
    ],
)
def test_fresh_processes_differ_in_one_condition(make: Any, condition: str) -> None:
    with pytest.raises(IncompleteError) as caught:
        check_complete(make, batch=BATCH)
    assert caught.value.condition == condition


@pytest.mark.slow
def test_fresh_processes_agree() -> None:
    check_complete(adding_tables, batch=BATCH)
