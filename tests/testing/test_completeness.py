"""Influences on a step from outside its state are named; permitted ones are ignored."""

from __future__ import annotations

import datetime
import functools
import itertools
import os
import random
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime as imported_datetime
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


def by_the_hour(model: nn.Module, batch: Tensor) -> Tensor:
    return square(model, batch) * (2.0 if time.localtime().tm_hour < 12 else 1.0)


def by_the_text_of_the_time(model: nn.Module, batch: Tensor) -> Tensor:
    return square(model, batch) * int(time.strftime("%H%M%S"))


def by_datetime(model: nn.Module, batch: Tensor) -> Tensor:
    return square(model, batch) * (1 + datetime.datetime.now().microsecond)


def by_an_imported_datetime(model: nn.Module, batch: Tensor) -> Tensor:
    return square(model, batch) * imported_datetime.utcnow().toordinal()


def by_the_date(model: nn.Module, batch: Tensor) -> Tensor:
    return square(model, batch) * datetime.date.today().day


def by_the_time_of_the_process(model: nn.Module, batch: Tensor) -> Tensor:
    return square(model, batch) * time.process_time()


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


@functools.lru_cache
def a_cached_rate(step: int) -> float:
    return random.random()


# Differs now and then.
CHANCES = itertools.cycle([1.0] * 3 + [2.0])


def by_chance(model: nn.Module, batch: Tensor) -> Tensor:
    return square(model, batch) * next(CHANCES)


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


SYSTEM = [
    (by_the_hour, r"time.localtime \(clock\)"),
    (by_the_text_of_the_time, r"time.strftime \(clock\)"),
    (by_datetime, r"datetime.now \(clock\)"),
    (by_an_imported_datetime, r"datetime.utcnow \(clock\)"),
    (by_the_date, r"date.today \(clock\)"),
    (by_the_time_of_the_process, r"time.process_time \(clock\)"),
    (by_the_process, r"os.getpid \(process\)"),
    (by_random_bytes, r"os.urandom, .* \(generator\)"),
    (by_the_random_of_the_system, r"os.urandom, .* \(generator\)"),
]

KEPT: list[tuple[Callable[[], ft.Program], str]] = [
    (lambda: program(counts_in_a_keyword), r"counts_in_a_keyword: seen \(default of an argument\)"),
    (lambda: program(counts_in_an_iterator), r"COUNTER \(count\)"),
    (lambda: program(counts_in_a_thread_local), r"LOCAL \(_local\)"),
    (lambda: program(centers_by_a_global), r"CRITERION.center \(attribute\)"),
    (lambda: program(centers_by_a_closure()), r"criterion.center \(attribute\)"),
    (lambda: program(Centering().loss), r"loss.center \(attribute\)"),
    (lambda: program(functools.partial(counts, {"calls": 0})), r"loss.args\[0\]"),
    (lambda: program(scales_by_what_was_drawn_once), r"drawn_once \(cache\)"),
    (lambda: program(model=CountsInItsClass(2, 1)), r"CountsInItsClass.calls \(attribute\)"),
    (lambda: program(reports_a_running_mean()), r"running \(closure variable\)"),
    (lambda: program(lr=LatestStep()), r"optimizer.lr.latest \(attribute\)"),
    (lambda: program(lr=a_cached_rate), r"the global generator of random \(generator\)"),
    (lambda: program(by_chance), r"not found \(unknown\)"),
    (lambda: program(optimizer=Momentum()), r"optimizer.moments \(attribute\)"),
    (
        lambda: program(optimizer=ft.optim.Lookahead(Momentum(), sync_period=2)),
        r"moments \(attribute\)",
    ),
]


@pytest.mark.row(58)
@pytest.mark.parametrize(("loss", "says"), SYSTEM, ids=lambda each: getattr(each, "__name__", ""))
def test_what_the_system_tells_is_named(loss: Any, says: str) -> None:
    with pytest.raises(IncompleteError, match=says):
        check_complete(program(loss), batch=BATCH)


def test_threads_that_run_besides_read_the_real_clocks_and_are_not_named() -> None:
    asked, answered, read = threading.Event(), threading.Event(), []

    def watch() -> None:
        asked.wait()
        read.append(time.time())
        answered.set()

    def while_another_reads(model: nn.Module, batch: Tensor) -> Tensor:
        asked.set()
        answered.wait()
        return square(model, batch) * time.monotonic()

    watcher = threading.Thread(target=watch)
    watcher.start()
    before = time.time()
    with pytest.raises(IncompleteError, match=r"\n  time.monotonic \(clock\)"):
        check_complete(program(while_another_reads), batch=BATCH)
    watcher.join()
    assert before <= read[0] <= time.time()


@pytest.mark.row(58)
@pytest.mark.parametrize(("make", "says"), KEPT, ids=[says for _, says in KEPT])
def test_what_code_keeps_is_named(make: Callable[[], ft.Program], says: str) -> None:
    with pytest.raises(IncompleteError, match=says):
        check_complete(make(), batch=BATCH)


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


@pytest.mark.parametrize(
    "make",
    [
        lambda: program(adds_tables),
        lambda: program(lambda model, batch: nn.MSELoss()(model(batch), batch[:, :1])),
    ],
)
def test_a_cache_of_constants_is_left_alone(make: Callable[[], ft.Program]) -> None:
    assert check_complete(make(), batch=BATCH) == []


@pytest.mark.filterwarnings("ignore::functrain.errors.ModuleStateWarning")
def test_a_step_does_not_find_what_an_earlier_one_kept() -> None:
    assert check_complete(program(model=KeepsItsFirstMean(2, 1)), batch=BATCH) == []


def merges_the_environment(model: nn.Module, batch: Tensor) -> Tensor:
    return square(model, batch) * float((os.environ | {"MERGED": "2"})["MERGED"])


def test_a_step_may_merge_the_environment() -> None:
    assert check_complete(program(merges_the_environment), batch=BATCH) == []


def test_everything_is_restored() -> None:
    CountsInItsClass.calls = 5
    with pytest.raises(IncompleteError):
        check_complete(program(model=CountsInItsClass(2, 1)), batch=BATCH)
    check_complete(program(adds_tables), batch=BATCH)
    assert CountsInItsClass.calls == 5
    assert TABLE is None
    assert table.cache_info().currsize == 0
    assert datetime.datetime is imported_datetime
    assert time.time() > 1.5e9


def by_the_address(model: nn.Module, batch: Tensor) -> Tensor:
    return square(model, batch) * (1 + os.stat("/proc/self").st_ino % 1009)


def of_the_address() -> ft.Program:
    return program(by_the_address)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="needs the numbers of processes")
@pytest.mark.long
def test_what_differs_by_process_is_not_laid_to_the_hash_seed() -> None:
    with pytest.raises(IncompleteError, match=r"not found \(process\)"):
        check_complete(of_the_address, batch=BATCH)
