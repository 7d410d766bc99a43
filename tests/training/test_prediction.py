"""Predicted final losses: exact on clean curves, sober on everything else."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import functrain as ft
from functrain.errors import ConfigurationError, MissingMetricWarning
from functrain.training.early_stopping.prediction import predict_final
from functrain.training.early_stopping.rules import PredictedStop

SIZES = st.floats(1e-3, 1e3)
SIGNED = SIZES.flatmap(lambda size: st.sampled_from([size, -size]))


def noisy(seed: int, count: int = 60, noise: float = 0.02) -> list[float]:
    draw = random.Random(seed).gauss
    return [2 * math.exp(-0.05 * t) + 0.5 + draw(0, noise) for t in range(count)]


@pytest.mark.row(48)
@settings(max_examples=150, deadline=None)
@given(
    a=SIGNED,
    bend=st.floats(0.05, 20),
    c=st.one_of(st.just(0.0), SIGNED),
    count=st.integers(4, 40),
    span=st.sampled_from([1, 300, 1e6]),
    origin=st.sampled_from([0, 5000]),
    horizon=st.floats(1, 50),
)
def test_clean_curves_are_extrapolated_within_a_hundredth(
    a: float, bend: float, c: float, count: int, span: float, origin: float, horizon: float
) -> None:
    b = bend / span

    def curve(step: float) -> float:
        return a * math.exp(-b * (step - origin)) + c

    steps = [origin + span * k / (count - 1) for k in range(count)]
    found = predict_final(steps, [curve(step) for step in steps], origin + horizon * span)
    assert found is not None
    true = curve(origin + horizon * span)
    assert abs(found.value - true) <= 0.01 * abs(true) + 1e-6 * abs(a)
    assert found.at(origin + horizon * span) == pytest.approx(found.value, rel=1e-6, abs=1e-9)
    if bend < 10:  # later the curve is over before the second point
        assert (found.a, found.b) == pytest.approx((a, b), rel=0.01)


@pytest.mark.row(48)
@pytest.mark.parametrize("seed", range(3))
def test_noisy_curves_are_fitted_as_by_scipy(seed: int) -> None:
    optimize, numpy = pytest.importorskip("scipy.optimize"), pytest.importorskip("numpy")
    values, times = noisy(seed), numpy.arange(60.0)
    found = predict_final(range(60), values, 59)

    def model(t: Any, a: float, b: float, c: float) -> Any:
        return a * numpy.exp(-b * t) + c

    loss = {"method": "trf", "loss": "huber", "f_scale": 0.027}
    expected, _ = optimize.curve_fit(model, times, values, p0=(1, 0.1, 0), **loss)
    assert found is not None
    assert (found.a, found.b, found.c) == pytest.approx(tuple(expected), rel=0.02)
    far = predict_final(range(60), values, 1000)
    assert far is not None
    assert far.value == pytest.approx(0.5, abs=0.05)


def test_single_spikes_do_not_count() -> None:
    values = noisy(0)
    calm = predict_final(range(60), values, 500)
    values[10], values[30] = -9, 40
    spiked = predict_final(range(60), values, 500)
    assert calm is not None
    assert spiked is not None
    assert spiked.value == pytest.approx(calm.value, abs=0.02)


def test_points_that_are_not_finite_are_left_out() -> None:
    steps = [*range(20), 20, 21, math.nan]
    losses = [math.exp(-t / 5) for t in range(20)] + [math.nan, math.inf, 3.0]
    assert predict_final(steps, losses, 100) == predict_final(steps[:20], losses[:20], 100)


@pytest.mark.row(48)
@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_the_scale_of_losses_does_not_matter(scale: float) -> None:
    values = noisy(1)
    one = predict_final(range(60), values, 200)
    other = predict_final(range(60), [scale * value for value in values], 200)
    assert one is not None
    assert other is not None
    assert other.value / scale == pytest.approx(one.value, rel=1e-6)


def test_negative_and_rising_values_are_no_exception() -> None:
    values = noisy(2)
    falling = predict_final(range(60), values, 200)
    rising = predict_final(range(60), [-value for value in values], 200)
    assert falling is not None
    assert rising is not None
    assert rising.value == pytest.approx(-falling.value, rel=1e-6)


def test_the_order_of_points_does_not_matter() -> None:
    pairs = list(enumerate(noisy(3)))
    random.Random(0).shuffle(pairs)
    steps, values = zip(*pairs, strict=True)
    one, other = predict_final(range(60), noisy(3), 200), predict_final(steps, values, 200)
    assert one is not None
    assert other is not None
    assert other.value == pytest.approx(one.value, rel=1e-6)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-320, 1.7e308])
def test_a_constant_stays(value: float) -> None:
    found = predict_final(range(5), [value] * 5, 100)
    assert found is not None
    assert (found.value, found.a, found.c) == (value, 0.0, value)


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [1.0, 0.5, 0.3],
        [1.0, 0.5, math.nan, 0.3, math.inf],
        [1 - t / 10 for t in range(10)],
        [2.0**t for t in range(10)],
        [10 - t**2 for t in range(10)],
        [1.7e308, -1.7e308] * 5,
    ],
    ids=["none", "three", "three finite", "line", "explosion", "fall", "overflow"],
)
def test_none_where_the_points_do_not_say_where_the_curve_ends(losses: list[float]) -> None:
    assert predict_final(range(len(losses)), losses, 1000) is None


def test_none_where_all_points_are_at_one_step() -> None:
    assert predict_final([3] * 6, [1, 2, 3, 4, 5, 6], 10) is None


def test_within_the_observed_steps_a_line_is_predicted() -> None:
    found = predict_final(range(10), [1 - t / 10 for t in range(10)], 4.5)
    assert found is not None
    assert found.value == pytest.approx(0.55, abs=1e-4)


def test_many_points_are_thinned_out() -> None:
    steps = range(200_000)
    found = predict_final(steps, [math.exp(-t / 5e4) + 1 for t in steps], 1e7)
    assert found is not None
    assert found.value == pytest.approx(1.0, rel=1e-6)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="3 steps, 2 losses"):
        predict_final([1, 2, 3], [1, 2], 5)
    with pytest.raises(ConfigurationError, match="at=nan"):
        predict_final([1, 2], [1, 2], math.nan)
    with pytest.raises(ConfigurationError, match="patience"):
        PredictedStop(bound=1, evaluations=5, patience=0)


class TestPredictedStop:
    def stopped_at(self, rule: PredictedStop, values: list[float]) -> int | None:
        state = rule.init()
        for at, value in enumerate(values):
            state = rule.observe(state, {"eval/loss": value})
            if state["stop"]:
                return at
        return None

    def test_only_hopeless_runs_end(self) -> None:
        values = [math.exp(-t / 5) + 0.3 for t in range(40)]
        assert self.stopped_at(PredictedStop(bound=0.2, evaluations=40), values) == 4
        assert self.stopped_at(PredictedStop(bound=0.4, evaluations=40), values) is None
        late = PredictedStop(bound=0.2, evaluations=40, warmup=10, patience=3)
        assert self.stopped_at(late, values) == 11

    def test_more_may_be_better(self) -> None:
        values = [0.9 - math.exp(-t / 5) for t in range(40)]
        rule = PredictedStop(bound=0.95, evaluations=40, mode="max")
        assert self.stopped_at(rule, values) == 4
        rule = PredictedStop(bound=0.85, evaluations=40, mode="max")
        assert self.stopped_at(rule, values) is None

    def test_a_missing_metric_is_warned_about(self) -> None:
        rule = PredictedStop(bound=1, evaluations=5)
        with pytest.warns(MissingMetricWarning, match="accuracy"):
            assert rule.observe(rule.init(), {"eval/accuracy": 1.0}) == rule.init()

    @pytest.mark.row(48)
    def test_it_ends_a_run_of_fit(self) -> None:
        x = torch.linspace(-1, 1, 16).reshape(-1, 1)
        data = ft.data.Batches((x, x**2), 16, shuffle=False)  # a line cannot fit it

        def loss(model: Any, batch: Any) -> torch.Tensor:
            return (model(batch[0]) - batch[1]).square().mean()

        program = ft.program(torch.nn.Linear(1, 1), loss, ft.optim.SGD(lr=0.1))
        rule = PredictedStop(bound=0.01, evaluations=100)
        run = ft.fit(program, data, until="100 epochs", eval_data=data, early_stop=rule)
        assert run.reason == "early_stop"
        assert "predicted to end" in run.detail
        assert run.state.counters.step < 30
