"""Listeners are due when ``functrain.training.limits.due`` says so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functrain.errors import ConfigurationError, UnknownLengthError
from functrain.listeners import intervals
from functrain.listeners.intervals import Interval
from functrain.training.durations import Epochs, Samples, Steps, duration
from functrain.training.limits import Position, due

DURATIONS = st.one_of(
    st.integers(1, 9).map(Steps),
    st.integers(1, 40).map(Samples),
    st.sampled_from(["0.1", "0.25", "1/3", "1", "1.5", "2"]).map(lambda n: duration(f"{n} epochs")),
)


def places(batches: int, size: int, steps: int) -> list[Any]:
    return [
        SimpleNamespace(step=n, samples=n * size, epoch=n // batches, batch=n % batches)
        for n in range(steps)
    ]


@given(
    every=DURATIONS, batches=st.integers(1, 7), size=st.integers(1, 50), begin=st.integers(0, 20)
)
def test_it_agrees_with_the_intervals_of_the_loop_from_any_step(
    every: Any, batches: int, size: int, begin: int
) -> None:
    counters = places(batches, size, 40)
    at = [
        Position(step=c.step, samples=c.samples, epoch=c.epoch, batch=c.batch, batches=batches)
        for c in counters
    ]
    interval = Interval(every)
    interval.begin(counters[begin], batches)
    for n in range(begin + 1, 40):
        assert interval.due(counters[n]) == due(every, at[n - 1], at[n])


def test_minutes_are_counted_from_the_beginning_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(intervals.time, "monotonic", lambda: now[0])
    interval, (at, *_) = Interval("1 minutes"), places(1, 1, 1)
    interval.begin(at, None)
    found = []
    for _ in range(12):
        now[0] += 25.0
        found.append(interval.due(at))
    assert [n for n, each in enumerate(found) if each] == [2, 4, 7, 9, 11]


def test_a_fraction_of_an_epoch_of_unknown_length_is_an_error() -> None:
    with pytest.raises(UnknownLengthError, match="use whole epochs"):
        Interval(Epochs(0.5)).begin(places(1, 1, 1)[0], None)


def test_a_bare_number_is_not_a_duration() -> None:
    with pytest.raises(ConfigurationError, match='did you mean "100 steps"'):
        Interval(100)  # type: ignore[arg-type]
