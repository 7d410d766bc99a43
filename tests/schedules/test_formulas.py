"""Schedules that torch lacks, against the formulas of their sources."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from functrain import schedules
from functrain.errors import ConfigurationError, UnknownLengthError

LR, STEPS = 0.3, 300


def lrs(schedule: schedules.Schedule, steps: int = STEPS) -> list[float]:
    return [schedule(step) for step in range(steps)]


def close(expected: list[float]) -> Any:
    return pytest.approx(expected, rel=1e-12, abs=0)


def transformers_inverse_sqrt(step: int, warmup: int, timescale: int | None) -> float:
    """The factor in `get_inverse_sqrt_schedule` of transformers."""
    timescale = (warmup or 10_000) if timescale is None else timescale
    if step < warmup:
        return float(step) / float(max(1, warmup))
    shift = timescale - warmup
    return 1.0 / math.sqrt((step + shift) / timescale)


@pytest.mark.row(17)
@pytest.mark.parametrize(("warmup", "timescale"), [(40, None), (0, None), (40, 7), (0, 25)])
def test_inverse_sqrt_is_that_of_transformers(warmup: int, timescale: int | None) -> None:
    expected = [LR * transformers_inverse_sqrt(step, warmup, timescale) for step in range(STEPS)]
    assert lrs(schedules.InverseSqrt(LR, warmup_steps=warmup, timescale=timescale)) == close(
        expected
    )


def test_inverse_sqrt_is_that_of_fairseq() -> None:
    def fairseq(updates: int, warmup: int = 40) -> float:
        if updates < warmup:
            return 0.0 + updates * (LR / warmup)
        return float(LR * warmup**0.5 * updates**-0.5)

    assert lrs(schedules.InverseSqrt(LR, warmup_steps=40)) == close(
        [fairseq(k) for k in range(STEPS)]
    )


def transformers_wsd(step: int, warmup: int, stable: int, decay: int, kind: str) -> float:
    """The factor in `get_wsd_schedule` of transformers, with min_lr_ratio 0."""
    if step < warmup:
        return float(step) / float(max(1, warmup))
    if step < warmup + stable:
        return 1.0
    if step >= warmup + stable + decay:
        return 0.0
    progress = float(step - warmup - stable) / float(max(1, decay))
    if kind == "linear":
        return 1.0 - progress
    if kind == "cosine":
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
    return 1.0 - math.sqrt(progress)


@pytest.mark.row(17)
@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt"])
@pytest.mark.parametrize(("warmup", "decay"), [(30, 60), (0, 300), (300, 0), (240, 60)])
def test_warmup_stable_decay_is_that_of_transformers(shape: str, warmup: int, decay: int) -> None:
    schedule = schedules.WarmupStableDecay(
        LR, warmup_steps=warmup, decay_steps=decay, shape=shape, steps=STEPS
    )
    stable = STEPS - warmup - decay
    expected = [LR * transformers_wsd(k, warmup, stable, decay, shape) for k in range(STEPS + 9)]
    assert lrs(schedule, STEPS + 9) == pytest.approx(expected, rel=1e-12, abs=1e-16)


@pytest.mark.row(17)
def test_warmup_stable_decay_in_parts_of_the_run() -> None:
    parts = schedules.WarmupStableDecay(LR, warmup_proportion=0.1, decay_proportion=0.25, end=0.01)
    state = parts.with_horizon(parts.init(), 80)
    assert state == {"horizon": 80, "warmup": 8, "decay": 20}
    steps = schedules.WarmupStableDecay(LR, warmup_steps=8, decay_steps=20, end=0.01, steps=80)
    assert [parts.lr(state, k) for k in range(100)] == lrs(steps, 100)
    assert steps(8) == steps(60) == LR
    assert steps(59) == LR > steps(61)
    assert steps(80) == steps(1000) == 0.01


def test_a_begun_run_keeps_its_warmup_and_decay() -> None:
    begun = schedules.WarmupStableDecay(LR, warmup_steps=5, decay_steps=20, steps=80)
    changed = schedules.WarmupStableDecay(LR, warmup_proportion=0.5, decay_proportion=0.5, steps=90)
    state = json.loads(json.dumps(begun.init()))
    assert [changed.lr(state, k) for k in range(100)] == lrs(begun, 100)


@pytest.mark.row(19)
@pytest.mark.parametrize(("bound", "length"), [(300, 300), (1000, 250), (251, 250), (10**6, 1)])
def test_the_hyperbolas_are_the_formulas_of_the_paper(bound: int, length: int) -> None:
    def drop(step: int) -> float:
        def g(x: int) -> float:
            return math.sqrt((length - x) / bound * (2 - (length + x) / bound))

        return g(min(step, length)) - g(0)

    low = 1e-3
    straight = schedules.Hyperbolic(LR, upper_bound=bound, infimum_lr=low, max_iter=length)
    curved = schedules.ExpHyperbolic(LR, upper_bound=bound, infimum_lr=low, max_iter=length)
    drops = [drop(step) for step in range(STEPS)]
    assert lrs(straight) == close([LR + (LR - low) * d for d in drops])
    assert lrs(curved) == close([LR * (LR / low) ** d for d in drops])
    assert straight(0) == curved(0) == LR
    assert straight(length) == straight(10**9)
    assert curved(length) == curved(10**9)


@pytest.mark.row(19)
@pytest.mark.parametrize("cls", [schedules.Hyperbolic, schedules.ExpHyperbolic])
def test_the_longest_run_arrives_at_the_infimum_and_shorter_ones_above(cls: Any) -> None:
    def end(length: int) -> float:
        return float(cls(LR, upper_bound=500, infimum_lr=0.01, max_iter=length)(length))

    assert end(500) == pytest.approx(0.01, rel=1e-12)
    assert LR > end(10) > end(100) > end(499) > 0.01


@pytest.mark.row(19)
@pytest.mark.parametrize("cls", [schedules.Hyperbolic, schedules.ExpHyperbolic])
def test_the_run_gives_the_hyperbola_its_length(cls: Any) -> None:
    schedule = cls(LR, upper_bound=500, infimum_lr=0.01)
    with pytest.raises(UnknownLengthError, match=rf"{cls.__name__}\(\.\.\., max_iter=N\)"):
        schedule(0)
    state = schedule.with_horizon(schedule.init(), 200)
    fixed = cls(LR, upper_bound=500, infimum_lr=0.01, max_iter=200)
    assert [schedule.lr(state, k) for k in range(STEPS)] == lrs(fixed)
    with pytest.raises(ConfigurationError, match=r"upper_bound=500: expected at least .* got 501"):
        schedule.with_horizon(schedule.init(), 501)


@pytest.mark.row(18)
@pytest.mark.parametrize("period", [1, 20, 37.5])
def test_exponential_warmup_is_that_of_pytorch_warmup(period: float) -> None:
    schedule = schedules.ExponentialWarmup(period, then=schedules.Linear(LR, steps=200))
    main = schedules.Linear(LR, steps=200)
    expected = [main(k) * (1.0 - math.exp(-(k + 1) / period)) for k in range(STEPS)]
    assert lrs(schedule) == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.row(18)
def test_exponential_warmup_advances_what_it_dampens_from_the_start() -> None:
    main = schedules.from_torch(torch.optim.lr_scheduler.ExponentialLR, lr=1.0, gamma=0.5)
    schedule = schedules.ExponentialWarmup(3, then=main)
    state, found = schedule.init(), []
    for step in range(6):
        found.append(schedule.lr(state, step))
        state = schedule.advance(state)
    assert found == close([0.5**k * (1 - math.exp(-(k + 1) / 3)) for k in range(6)])
    assert [schedule(step) for step in range(6)] == found


@pytest.mark.row(18)
@pytest.mark.parametrize("factor", [0.0, 0.1, 0.37, 1.0])
@pytest.mark.parametrize("steps", [1, 4, 33])
def test_warmup_is_the_factor_form_over_a_schedule_that_advances(factor: float, steps: int) -> None:
    main = schedules.from_torch(torch.optim.lr_scheduler.ExponentialLR, lr=LR, gamma=0.9)
    schedule = schedules.Warmup(factor, steps, then=main)
    state, found = schedule.init(), []
    for step in range(60):
        found.append(schedule.lr(state, step))
        state = schedule.advance(state)
    climb = [LR * (factor + (1 - factor) * k / steps) for k in range(steps + 1)]
    fall = [LR * 0.9 ** (k - steps) for k in range(steps + 1, 60)]
    assert found == close(climb + fall)


@pytest.mark.row(17)
def test_piecewise_by_hand() -> None:
    points = {0: 1.0, 2: 0.5, 6: 0.1}
    assert lrs(schedules.Piecewise(points), 8) == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.1, 0.1]
    assert lrs(schedules.Piecewise(points, "linear"), 8) == close(
        [1, 0.75, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1]
    )
    cosine = lrs(schedules.Piecewise([[0, 1.0], [4, 0.0]], "cosine"), 6)
    assert cosine == pytest.approx([(1 + math.cos(math.pi * min(k, 4) / 4)) / 2 for k in range(6)])


def test_one_cycle_stays_at_its_end_where_torch_raises() -> None:
    schedule = schedules.OneCycle(1.0, steps=50)
    assert schedule(49) == schedule(50) == schedule(10**6) == pytest.approx(1 / 25 / 1e4)


@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_one_cycle_of_very_few_steps(three: bool, steps: int) -> None:
    # Here phases are empty, and torch divides by zero.
    for part in (0.0, 0.1, 0.2, 1 / 3, 0.5):
        schedule = schedules.OneCycle(1.0, warmup_proportion=part, three_phase=three, steps=steps)
        assert all(1 / 25 / 1e4 - 1e-15 <= lr <= 1 for lr in lrs(schedule, 8))


def test_exponential_stops_at_its_end_at_any_step() -> None:
    assert lrs(schedules.Exponential(1.0, 0.5, end=0.2), 5) == [1.0, 0.5, 0.25, 0.2, 0.2]
    assert schedules.Exponential(1.0, 0.5)(10**6) == 0.0
    schedule = schedules.Exponential(1e-6, 1.1, end=2.0)
    assert schedule(10) == pytest.approx(1e-6 * 1.1**10)
    assert schedule(1000) == schedule(10**9) == 2.0
    assert schedules.Exponential(0.0, 1.1, end=2.0)(10**9) == 0.0


def test_waves_that_grow_are_found_at_any_step() -> None:
    schedule = schedules.CosineRestarts(1.0, period=1, growth=2)
    assert schedule(2**60 - 1) == 1.0  # exactly the first step of a wave
    assert schedule(2**60 - 2) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.Step(0.1, every=1, factor=2.0),
        schedules.MultiStep(0.1, range(3000), factor=2.0),
        schedules.Exponential(0.1, 2.0),
        schedules.Cyclic(0.1, 0.2, up=7, mode="exp_range", factor=2.0),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_a_rate_beyond_what_floats_hold_is_infinite(schedule: schedules.Schedule) -> None:
    assert schedule(100) > 1e28
    assert schedule(2999) == math.inf
