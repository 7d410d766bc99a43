"""An axis holds all values, with a few round ticks in few characters."""

from __future__ import annotations

import math

import pytest

from functrain.plotting.axis import Axis, number

VALUES = [
    [0.0],
    [1.0],
    [-3.0, -3.0],
    [1e-300, 2e-300],
    [5e-324],
    [-1e299, 1e299],
    [1e308, math.inf, math.nan],
    [],
    [0.9999999, 1.0],
    [0.98, 0.99, 0.985],
    [1.0, 1e6],
    [3e-4, 1e-9],
    [0.0, 1.0, -1.0],
    [1e15, 1e15 + 1],
]


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", VALUES)
def test_every_range_has_ticks_in_it_and_a_place_for_every_value(
    values: list[float], log: bool
) -> None:
    axis = Axis.over(values, log)
    assert axis.low < axis.high
    ticks = axis.ticks(5)
    assert 1 <= len(ticks) <= 12
    assert all(axis.low <= value <= axis.high for value, _ in ticks)
    assert len({text for _, text in ticks}) == len(ticks)
    for value in values:
        place = axis.place(value)
        assert place is None or 0 <= place <= 1
        has_one = abs(value) < 1e300 and (value > 1e-300 or not axis.log)
        assert (place is not None) == has_one


def test_ticks_are_as_round_as_those_of_matplotlib() -> None:
    ticker = pytest.importorskip("matplotlib.ticker")
    for low, high in ((0, 138), (0.02, 0.98), (-7, 3), (0, 3e-4), (1e5, 9e6)):
        theirs = ticker.MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        ours = [value for value, _ in Axis(low, high).ticks(5)]
        within = [value for value in theirs if low <= value <= high * (1 + 1e-12)]
        assert ours == pytest.approx(within)


@pytest.mark.parametrize(
    "value", [1e-12, 3e-4, 0.05, 0, 999, 1000, 12_500, 1e6, 2.5e9, 1e14, 1e200]
)
def test_labels_are_short_and_exact(value: float) -> None:
    text = number(value)
    assert len(text) <= 6
    scale = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(text[-1])
    said = float(text[:-1]) * scale if scale else float(text)
    assert said == pytest.approx(value)


def test_ticks_of_steps_are_whole_numbers() -> None:
    assert [text for _, text in Axis.of_steps([1.0]).ticks(6, whole=True)] == ["0", "1"]
    assert [text for _, text in Axis.of_steps([1, 2, 3]).ticks(6, whole=True)] == list("0123")[1:]
