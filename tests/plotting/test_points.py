"""Columns, x values, decimation and smoothing."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from functrain.errors import LogError
from functrain.plotting.columns import Columns, x_values
from functrain.plotting.points import decimate, find_undrawable, smooth_values


class TestColumns:
    def test_hold_each_metric_with_the_rows_that_measured_it(self) -> None:
        rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": math.inf, "eval/loss": 1.0}]
        columns = Columns.of(rows)
        assert columns.length == 2
        assert list(columns.values["loss"]) == [2.0, math.inf]
        assert list(columns.rows["eval/loss"]) == [1]

    def test_leave_out_values_that_are_no_numbers(self) -> None:
        assert Columns.of([{"step": 1, "note": "x", "none": None}]).names() == ["step"]


ROWS = [{"step": step, "epoch": (step - 1) // 4, "loss": 1.0} for step in range(1, 11)]


class TestXValues:
    def test_rows_spread_evenly_over_equally_long_epochs(self) -> None:
        assert list(x_values(Columns.of(ROWS), "epoch")) == [s / 4 for s in range(1, 11)]

    def test_an_epoch_whose_last_row_has_its_means_is_complete(self) -> None:
        rows = [*ROWS[:3], {**ROWS[3], "epoch/loss": 1.0}]
        assert list(x_values(Columns.of(rows), "epoch")) == [0.25, 0.5, 0.75, 1.0]

    def test_without_a_complete_epoch_its_length_is_not_guessed(self) -> None:
        with pytest.raises(LogError, match="no epoch of this run is complete"):
            x_values(Columns.of(ROWS[:3]), "epoch")

    def test_samples_and_time_need_a_listener_that_logs_them(self) -> None:
        rows = [{**row, "samples": 8.0 * row["step"], "seconds": 0.5} for row in ROWS]
        assert x_values(Columns.of(rows), "samples")[1] == 16.0
        assert x_values(Columns.of(rows), "time")[1] == 0.5
        with pytest.raises(LogError, match=r"no 'samples' in every row.*it has \['step'"):
            x_values(Columns.of(ROWS), "samples")


class TestDecimation:
    def test_keeps_every_extreme_of_every_pixel(self) -> None:
        draw = random.Random(0)
        values = [draw.gauss(0, 1) for _ in range(10_007)]
        kept = decimate(values, 100)
        assert kept == sorted(set(kept))
        assert len(kept) <= 202
        edges = [len(values) * pixel // 100 for pixel in range(101)]
        for begin, end in pairwise(edges):
            there = {values[index] for index in kept if begin <= index < end}
            assert {min(values[begin:end]), max(values[begin:end])} <= there

    @pytest.mark.parametrize("value", [1e9, -1e9])
    def test_a_single_spike_among_a_million_stays(self, value: float) -> None:
        values = [0.0] * 1_000_000
        values[654_321] = value
        assert 654_321 in decimate(values, 400)

    def test_few_values_all_stay(self) -> None:
        assert decimate([1.0, math.nan, 2.0], 400) == [0, 1, 2]
        assert decimate([], 400) == []

    def test_values_that_are_not_finite_hide_nothing_and_are_found(self) -> None:
        values = [1.0, math.nan] * 5_000
        values[5_000] = 7.0
        kept = decimate(values, 50)
        assert 5_000 in kept
        assert all(math.isfinite(values[index]) for index in kept[:-1])
        assert len(find_undrawable(values, 50)) == 50
        assert len(decimate([math.nan] * 1_000, 50)) <= 101


class TestSmoothing:
    @pytest.mark.parametrize("length", [1, 2, 7, 40, 333])
    @pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.35])
    def test_equals_the_rolling_mean_of_pandas(self, length: int, share: float) -> None:
        pandas = pytest.importorskip("pandas")
        draw = random.Random(length)
        values = [draw.choice([draw.random(), math.nan]) for _ in range(length)]
        window = 2 * round(length * share / 2) + 1
        expected = pandas.Series(values).rolling(window, center=True, min_periods=1).mean()
        assert window < 128  # of wider ones the edges are rounded
        assert smooth_values(values, share) == pytest.approx(list(expected), nan_ok=True)

    def test_skips_values_that_are_not_finite(self) -> None:
        values = [1.0, math.nan, 3.0, math.inf, math.nan, math.nan]
        means = smooth_values(values, share=0.34)
        assert means[:4] == [1.0, 2.0, 3.0, 3.0]
        assert all(math.isnan(mean) for mean in means[4:])

    def test_a_huge_spike_leaves_the_values_after_it_as_they_are(self) -> None:
        values = [1e250, *[0.1] * 1_000]
        assert smooth_values(values, 0.05)[-1] == pytest.approx(0.1)

    def test_means_at_some_indices_equal_those_of_all(self) -> None:
        values = [float(value % 17) for value in range(5_000)]
        every = smooth_values(values, 0.2)
        assert smooth_values(values, 0.2, at=[0, 2_500, 4_999]) == [
            every[0],
            every[2_500],
            every[-1],
        ]
