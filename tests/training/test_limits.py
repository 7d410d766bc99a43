"""Limits are reached and intervals are due exactly, in every unit, and as computed beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import functrain as ft
from functrain.errors import ConfigurationError, InvalidPositionError, UnknownLengthError
from functrain.schedules import Cosine
from functrain.training.durations import Duration, Epochs, Minutes, Samples, Steps
from functrain.training.limits import Limits, Position, due, passed, reached


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


def walk(epochs: int, batches: int, known: bool = True) -> list[Position]:
    """Return the position after each batch; an epoch's end is written as the next one's begin."""
    length = batches if known else None
    done = [divmod(step, batches) for step in range(epochs * batches + 1)]
    return [
        Position(step=step, epoch=epoch, batch=batch, batches=length)
        for step, (epoch, batch) in enumerate(done)
    ]


def firings(interval: Duration, positions: list[Position]) -> list[int]:
    """Return the numbers of the steps after which `interval` was due."""
    return [n for n, pair in enumerate(pairwise(positions), start=1) if due(interval, *pair)]


@given(n=st.integers(1, 50), total=st.integers(0, 200))
def test_steps_are_due_at_each_multiple_and_nowhere_else(n: int, total: int) -> None:
    positions = [Position(step=step) for step in range(total + 1)]
    assert firings(Steps(n), positions) == list(range(n, total + 1, n))


@given(n=st.integers(1, 100), sizes=st.lists(st.integers(0, 64), max_size=60))
def test_samples_are_due_once_for_every_step_that_reaches_a_multiple(
    n: int, sizes: list[int]
) -> None:
    totals = [sum(sizes[:count]) for count in range(len(sizes) + 1)]
    expected = [
        step
        for step, (before, after) in enumerate(pairwise(totals), start=1)
        if any(multiple % n == 0 for multiple in range(before + 1, after + 1))
    ]
    assert firings(Samples(n), [Position(samples=total) for total in totals]) == expected


@given(batches=st.integers(1, 40), every=st.fractions(Fraction(1, 12), 3, max_denominator=12))
def test_epochs_are_due_at_the_first_batch_that_reaches_a_multiple(
    batches: int, every: Fraction
) -> None:
    epochs = 5
    multiples = [every * k for k in range(1, int(epochs / every) + 1)]
    first = {-(-multiple * batches // 1) for multiple in multiples}  # rounded up
    assert firings(Epochs(every), walk(epochs, batches)) == sorted(first)


@given(batches=st.integers(2, 60))
def test_half_epochs_are_due_twice_an_epoch_and_at_its_end(batches: int) -> None:
    half = (batches + 1) // 2
    expected = [epoch * batches + at for epoch in range(3) for at in (half, batches)]
    assert firings(Epochs(0.5), walk(3, batches)) == expected


def test_half_epochs_of_seven_batches() -> None:
    assert firings(Epochs(0.5), walk(2, 7)) == [4, 7, 11, 14]


def test_a_tenth_of_an_epoch_of_ten_batches_is_a_batch() -> None:
    assert firings(Epochs(0.1), walk(3, 10)) == list(range(1, 31))


@given(
    interval=st.one_of(
        st.builds(Steps, st.integers(1, 9)),
        st.builds(Epochs, st.fractions(Fraction(1, 9), 2, max_denominator=9)),
    ),
    batches=st.integers(1, 20),
    keep=st.data(),
)
def test_where_a_run_was_cut_makes_no_difference(
    interval: Duration, batches: int, keep: st.DataObject
) -> None:
    positions = walk(4, batches)
    cut = keep.draw(st.integers(0, len(positions) - 1))
    head, tail = firings(interval, positions[: cut + 1]), firings(interval, positions[cut:])
    assert head + [cut + n for n in tail] == firings(interval, positions)


def test_the_two_ways_to_write_an_epochs_end_are_one_place() -> None:
    end = Position(epoch=0, batch=7, batches=7)
    begin = Position(epoch=1, batch=0, batches=7)
    assert due(Epochs(1), Position(batch=6, batches=7), end)
    assert not due(Epochs(1), end, begin)
    assert end.epochs == begin.epochs == 1


def test_epochs_of_different_lengths() -> None:
    lengths = [3, 5, 2]
    positions = [Position(batches=lengths[0])]
    for epoch, length in enumerate(lengths):
        positions += [Position(epoch=epoch, batch=n, batches=length) for n in range(1, length + 1)]
    assert firings(Epochs(0.5), positions) == [2, 3, 6, 8, 9, 10]


def test_whole_epochs_work_without_a_length() -> None:
    assert firings(Epochs(2), walk(5, 3, known=False)) == [6, 12]
    assert reached(Epochs(5), walk(5, 3, known=False)[-1])
    assert not reached(Epochs(5), walk(5, 3, known=False)[-2])


@pytest.mark.parametrize("batch", [0, 1])
def test_parts_of_an_epoch_need_its_length(batch: int) -> None:
    with pytest.raises(UnknownLengthError, match=r'"1\.5 epochs" needs the number of batches'):
        reached(Epochs(1.5), Position(epoch=1, batch=batch))


def test_the_part_of_an_epoch_needs_its_length() -> None:
    assert Position(epoch=2).epochs == 2
    with pytest.raises(UnknownLengthError, match="batch 1"):
        _ = Position(epoch=2, batch=1).epochs


@given(
    every=st.fractions(Fraction(1, 100), 10, max_denominator=100),
    ticks=st.lists(st.floats(0, 3), max_size=50),
)
def test_minutes_are_due_as_often_as_they_are_passed(every: Fraction, ticks: list[float]) -> None:
    positions = [Position(minutes=sum(ticks[:count])) for count in range(len(ticks) + 1)]
    expected = [
        n
        for n, (before, after) in enumerate(pairwise(positions), start=1)
        if Fraction(before.minutes) // every < Fraction(after.minutes) // every
    ]
    assert firings(Minutes(every), positions) == expected


@pytest.mark.parametrize(
    ("limit", "short", "enough"),
    [
        (Steps(10), Position(step=9), Position(step=10)),
        (Samples(64), Position(samples=63), Position(samples=64)),
        (Minutes(1.5), Position(minutes=1.4999), Position(minutes=1.5)),
        (Epochs(1.5), Position(epoch=1, batch=3, batches=7), Position(epoch=1, batch=4, batches=7)),
        (Epochs(2), Position(epoch=1, batch=6, batches=7), Position(epoch=1, batch=7, batches=7)),
    ],
)
def test_reached_exactly(limit: Duration, short: Position, enough: Position) -> None:
    assert not reached(limit, short)
    assert reached(limit, enough)


def test_a_limit_that_was_overshot_is_reached() -> None:
    assert reached(Samples(10), Position(samples=64))
    assert reached(Minutes(1), Position(minutes=2.5))


@pytest.mark.parametrize(
    "interval", [Steps(1), Samples(1), Minutes(Fraction(1, 10**6)), Epochs(1), Epochs(0.1)]
)
def test_nothing_is_due_or_reached_at_the_beginning(interval: Duration) -> None:
    start = Position(batches=10)
    assert passed(interval, start) == 0
    assert not due(interval, start, start)
    assert not reached(interval, start)


def test_a_step_longer_than_the_interval_is_due_once() -> None:
    assert firings(Samples(10), [Position(samples=n) for n in (0, 35, 39, 40)]) == [1, 3]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"step": -1}, "at least 0"),
        ({"samples": -1}, "at least 0"),
        ({"epoch": -1}, "at least 0"),
        ({"batch": -1}, "at least 0"),
        ({"minutes": -0.5}, "at least 0"),
        ({"batch": 8, "batches": 7}, "7 batches"),
        ({"batches": 0}, "0 batches"),
        ({"minutes": float("nan")}, "finite"),
        ({"minutes": float("inf")}, "finite"),
    ],
)
def test_positions_that_cannot_be(fields: dict[str, float], said: str) -> None:
    with pytest.raises(InvalidPositionError, match=said):
        Position(**fields)  # type: ignore[arg-type]
