"""The steps that limits allow: computed beforehand, and made by the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import functrain as ft
from functrain.errors import ConfigurationError, UnknownLengthError
from functrain.schedules import Cosine
from functrain.training.limits import Limits


def batches(count: int) -> list[Tensor]:
    return [torch.full((2, 3), float(index)) for index in range(count)]


def program(accumulate: int = 1, lr: Any = 0.01) -> ft.Program:
    model = torch.nn.Linear(3, 1)

    def loss(module: torch.nn.Module, batch: Tensor) -> Tensor:
        return module(batch).square().mean()  # type: ignore[no-any-return]

    return ft.program(model, loss, ft.optim.SGD(lr=lr), accumulate=accumulate)


class Endless:
    """An iterable without a length."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter(batches(4))


@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 6, 7])
@pytest.mark.parametrize(
    "until",
    [
        "5 steps",
        "1 epoch",
        "3 epochs",
        "0.5 epochs",
        "1.5 epochs",
        "2.3 epochs",
        ["4 steps", "10 epochs"],
        ["2 epochs", "100 steps"],
        ["10 minutes", "2 epochs", "1000 samples"],
    ],
)
def test_a_run_ends_after_as_many_steps_as_were_computed(
    until: Any, count: int, accumulate: int
) -> None:
    told = Limits.of(until).steps(count, accumulate)
    run = ft.fit(program(accumulate), batches(count), until=until)
    assert run.state.counters.step == told


@pytest.mark.parametrize("until", ["9 samples", "2 minutes", ["9 samples", "2 minutes"]])
def test_samples_and_minutes_tell_no_steps(until: Any) -> None:
    assert Limits.of(until).steps(7, 1) is None


def test_where_the_length_of_an_epoch_is_unknown_only_steps_count() -> None:
    assert Limits.of("2 epochs").steps(None, 1) is None
    assert Limits.of(["2 epochs", "5 steps"]).steps(None, 1) == 5
    with pytest.raises(UnknownLengthError):
        ft.fit(program(lr=Cosine(0.01)), Endless(), until="2 epochs")


def test_a_schedule_ends_with_the_run() -> None:
    run = ft.fit(program(2, Cosine(0.01)), batches(7), until=["2.5 epochs", "100 steps"])
    assert run.state.scheduler == {"horizon": run.state.counters.step}


def test_the_clock_matters_only_to_minutes() -> None:
    assert Limits.of(["5 steps", "1 minute"]).timed
    assert not Limits.of(["5 steps", "1 epoch", "9 samples"]).timed


def test_the_limit_that_was_reached_is_named() -> None:
    run = ft.fit(program(), batches(4), until=["9 epochs", "3 samples"])
    assert (run.reason, run.detail) == ("max_samples", "reached 3 samples")
    run = ft.fit(program(), batches(4), until=["9 epochs", "0.001 seconds"])
    assert run.reason == "max_time"


def test_no_limit_at_all_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least one duration"):
        Limits.of([])
