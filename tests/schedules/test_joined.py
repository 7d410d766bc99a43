"""Scaled and Joined, and how all that is made of schedules nests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from torch.optim import lr_scheduler

from functrain.errors import ConfigurationError, ScheduleStateError, UnknownLengthError
from functrain.schedules import (
    Constant,
    Cosine,
    ExponentialWarmup,
    Joined,
    Linear,
    Plateau,
    Scaled,
    Schedule,
    Sequential,
    Spike,
    Warmup,
    WarmupCosine,
    from_torch,
)


def follow(schedule: Schedule, steps: int, horizon: int | None = None) -> list[float]:
    state, lrs = schedule.init(), []
    if horizon is not None:
        state = schedule.with_horizon(state, horizon)
    for step in range(steps):
        lrs.append(schedule.lr(state, step))
        state = json.loads(json.dumps(schedule.advance(state)))
    return lrs


def test_scaled_multiplies_and_passes_everything_on() -> None:
    inner = Plateau(1.0, patience=0, factor=0.5)
    schedule = Scaled(inner, 0.1)
    state = schedule.init()
    assert state == inner.init()
    for metric in (1.0, 1.0):
        state = schedule.observe(schedule.advance(state), metric)
    assert schedule.lr(state, 2) == 0.1 * 0.5
    assert follow(Scaled(Cosine(1.0), 0.1), 9, 8) == [0.1 * lr for lr in follow(Cosine(1.0), 9, 8)]
    assert Scaled(Linear(1.0, steps=4), 0.5)(2) == 0.25


def test_joined_is_sequential_with_boundaries_in_parts_of_the_run() -> None:
    parts = [(0.1, Linear(0.0, end=1.0)), (0.6, 1.0), (0.3, Cosine(1.0))]
    for steps in (10, 87, 1000):
        first, second = round(0.1 * steps), round(0.7 * steps)
        sequential = Sequential(
            [Linear(0.0, end=1.0), 1.0, Cosine(1.0)], boundaries=[first, second]
        )
        assert follow(Joined(parts), steps + 9, steps) == follow(sequential, steps + 9, steps)
        fixed = Joined(parts, steps=steps)
        assert [fixed(step) for step in range(steps + 9)] == follow(fixed, steps + 9)
        assert fixed.init() == Joined(parts).with_horizon(Joined(parts).init(), steps)


def test_a_begun_run_keeps_its_boundaries() -> None:
    schedule = Joined([(0.5, 1.0), (0.5, 0.1)])
    state = json.loads(json.dumps(schedule.with_horizon(schedule.init(), 20)))
    assert schedule.with_horizon(state, 100) == state
    assert [schedule.lr(state, step) for step in (9, 10)] == [1.0, 0.1]


def test_joined_shows_metrics_to_the_one_in_charge() -> None:
    plateau = Plateau(1.0, patience=0, factor=0.5)
    schedule = Joined([(0.5, plateau), (0.5, plateau)], steps=4)
    state, lrs = schedule.init(), []
    for step in range(5):
        lrs.append(schedule.lr(state, step))
        state = schedule.observe(schedule.advance(state), 1.0)
    assert lrs == [1.0, 1.0, 1.0, 0.5, 0.25]
    with pytest.raises(ScheduleStateError, match="Plateau"):
        schedule(3)


def test_joined_replays_a_torch_schedule_from_its_own_start() -> None:
    torch_one = from_torch(lr_scheduler.ExponentialLR, lr=1.0, gamma=0.5)
    schedule = Joined([(0.5, 0.3), (0.5, torch_one)], steps=6)
    assert [schedule(step) for step in range(7)] == follow(schedule, 7)
    assert follow(schedule, 7) == [0.3, 0.3, 0.3, 1.0, 0.5, 0.25, 0.125]


def test_joined_waits_for_the_length_of_the_run() -> None:
    schedule = Joined([(0.5, 1.0), (0.5, 0.1)])
    for call in (schedule.lr, lambda state, _: schedule.advance(state)):
        with pytest.raises(UnknownLengthError, match="Joined"):
            call(schedule.init(), 0)
    with pytest.raises(ConfigurationError, match="in a run of 1 steps a schedule would get none"):
        schedule.with_horizon(schedule.init(), 1)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [(1.0, 0.1), (0.0, 0.1)],
        [(0.5, 0.1), (0.4, 0.1)],
        [(0.5, 0.1, 3), (0.5, 0.1)],
        [0.5, 0.5],
        3,
        "ab",
        [("0.5", 0.1), (0.5, 0.1)],
    ],
)
def test_parts_must_add_up(parts: Any) -> None:
    with pytest.raises(ConfigurationError, match="Joined: parts: expected"):
        Joined(parts)


def test_thirds_add_up() -> None:
    assert follow(Joined([(1 / 3, 1.0), (1 / 3, 0.5), (1 / 3, 0.1)]), 4, 3) == [1, 0.5, 0.1, 0.1]


def test_everything_nests() -> None:
    schedule = Spike(
        Scaled(
            Joined(
                [
                    (0.25, Warmup(0.1, 2, then=Linear(1.0))),
                    (0.5, ExponentialWarmup(3, then=Sequential([1.0, Cosine(0.5)], [10]))),
                    (0.25, from_torch(lr_scheduler.StepLR, lr=1.0, step_size=2, gamma=0.5)),
                ]
            ),
            0.1,
        ),
        burn_in=1,
    )
    found = follow(schedule, 80, 80)
    assert found[:3] == pytest.approx([0.01, 0.055, 0.1])
    assert found[2 + 9] == pytest.approx(0.1 * (1 - 9 / 18))
    assert found[20] == pytest.approx(0.1 * (1 - 2.718281828459045 ** (-1 / 3)))
    inner = Cosine(0.5, steps=30)(5) * (1 - 2.718281828459045 ** (-16 / 3))
    assert found[20 + 15] == pytest.approx(0.1 * inner)
    assert found[60:66] == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025])
    state = schedule.with_horizon(schedule.init(), 80)
    assert schedule.with_horizon(state, 33) == state


@pytest.mark.parametrize(
    ("schedule", "horizon"),
    [
        (Constant(0.1), None),
        (Cosine(0.1), None),
        (Cosine(0.1, steps=7), 7),
        (Warmup(0.1, 5, then=Cosine(0.1, steps=7)), 12),
        (Warmup(0.1, 5, then=Cosine(0.1)), None),
        (Sequential([0.1, WarmupCosine(0.1, warmup_steps=1, steps=7)], [10]), 17),
        (Sequential([Cosine(0.1, steps=7), 0.1], [10]), None),
        (Joined([(0.5, 0.1), (0.5, 0.2)], steps=9), 9),
        (Scaled(Spike(ExponentialWarmup(5, Cosine(0.1, steps=7))), 2.0), 7),
        (from_torch(lr_scheduler.StepLR, lr=0.1, step_size=2), None),
    ],
)
def test_where_a_schedule_ends_by_itself(schedule: Schedule, horizon: int | None) -> None:
    assert schedule.horizon() == horizon
