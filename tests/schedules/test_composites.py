"""Schedules made of schedules, with their states inside their own, and how they nest."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from functrain.errors import (
    ConfigurationError,
    MissingMetricWarning,
    ScheduleStateError,
    UnknownLengthError,
    UnsupportedError,
)
from functrain.schedules import (
    Constant,
    Cosine,
    ExponentialWarmup,
    Joined,
    Linear,
    Plateau,
    Scaled,
    Schedule,
    ScheduleState,
    Sequential,
    Spike,
    Warmup,
    WarmupCosine,
    from_torch,
)

PLATEAU = Plateau(1.0, patience=0, factor=0.5)


def follow(
    schedule: Schedule, steps: int, horizon: int | None = None, saves: float = 1.0, seed: int = 0
) -> list[float]:
    """Return the lrs of a run whose state is saved and loaded at each step, or at random ones."""
    source = random.Random(seed)
    state, lrs = schedule.init(), []
    if horizon is not None:
        state = schedule.with_horizon(state, horizon)
    for step in range(steps):
        lrs.append(schedule.lr(state, step))
        state = schedule.advance(state)
        if source.random() < saves:
            state = json.loads(json.dumps(state))
    return lrs


@pytest.mark.row(18)
def test_the_factor_form_of_warmup() -> None:
    schedule = Warmup(0.1, steps=4, then=1.0)
    expected = [0.1, 0.325, 0.55, 0.775, 1.0, 1.0]
    assert follow(schedule, 6) == pytest.approx(expected, rel=1e-15)
    assert [schedule(step) for step in range(6)] == follow(schedule, 6)


@pytest.mark.row(18)
def test_the_main_schedule_first_moves_a_step_after_the_warmup() -> None:
    schedule = Warmup(0.1, steps=4, then=Linear(2.0, steps=10))
    expected = [0.2, 0.65, 1.1, 1.55, 2.0, 1.8, 1.6]
    assert follow(schedule, 7) == pytest.approx(expected, rel=1e-15)


@pytest.mark.row(18)
def test_a_torch_schedule_after_a_warmup_is_first_stepped_after_it() -> None:
    main = from_torch(lr_scheduler.ExponentialLR, lr=1.0, gamma=0.5)
    schedule = Warmup(0.0, steps=2, then=main)
    assert follow(schedule, 6) == [0.0, 0.5, 1.0, 0.5, 0.25, 0.125]
    assert [schedule(step) for step in range(6)] == follow(schedule, 6)


@pytest.mark.row(18)
@pytest.mark.parametrize("factor", [0.0, 1.0])
def test_the_bounds_of_the_factor(factor: float) -> None:
    schedule = Warmup(factor, steps=2, then=1.0)
    assert follow(schedule, 3) == [factor, (1 + factor) / 2, 1.0]


def test_a_warmup_of_no_steps() -> None:
    assert follow(Warmup(0.5, steps=0, then=Linear(1.0, steps=2)), 3) == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # The first metric that counts is the one after update 2, and is the best so far.
        (Warmup(0.5, steps=2, then=PLATEAU), [0.5, 0.75, 1.0, 0.5, 0.25]),
        # The metric after update 1 is for the second one, which is in charge from update 2 on.
        (Sequential([PLATEAU, PLATEAU], boundaries=[2]), [1.0, 1.0, 1.0, 0.5, 0.25]),
        (Joined([(0.5, PLATEAU), (0.5, PLATEAU)], steps=4), [1.0, 1.0, 1.0, 0.5, 0.25]),
    ],
)
def test_only_the_one_in_charge_sees_metrics(schedule: Schedule, expected: list[float]) -> None:
    state, lrs = schedule.init(), []
    for step in range(5):
        lrs.append(schedule.lr(state, step))
        state = schedule.observe(schedule.advance(state), 1.0)
    assert lrs == expected
    with pytest.raises(ScheduleStateError, match="Plateau"):
        schedule(3)


def test_warmup_passes_the_notice_of_a_missing_metric_on() -> None:
    schedule = Warmup(0.5, steps=0, then=Plateau(1.0))
    with pytest.warns(MissingMetricWarning):
        schedule.observe(schedule.init(), None)


def test_warmup_wants_a_schedule() -> None:
    with pytest.raises(UnsupportedError):
        Warmup(0.1, steps=4, then="cosine")


def sequential() -> Sequential:
    return Sequential(
        [
            Warmup(0.1, 5, then=Constant(1.0)),
            from_torch(lr_scheduler.StepLR, lr=1.0, step_size=3, gamma=0.5),
            lambda step: 0.1 / (1 + step),
            WarmupCosine(0.5, warmup_steps=4, steps=30),
        ],
        boundaries=[10, 25, 40],
    )


def test_sequential_equals_its_parts() -> None:
    schedule = sequential()
    edges = [0, *schedule.boundaries, 80]
    parts = [
        follow(child, end - start)
        for child, start, end in zip(schedule.schedules, edges, edges[1:], strict=False)
    ]
    assert follow(schedule, 80) == [lr for part in parts for lr in part]
    assert [schedule(step) for step in range(80)] == follow(schedule, 80)


def test_sequential_equals_that_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    children = [
        lr_scheduler.ConstantLR(optimizer, factor=0.25, total_iters=1000),
        lr_scheduler.ExponentialLR(optimizer, gamma=0.9),
    ]
    oracle = lr_scheduler.SequentialLR(optimizer, children, milestones=[7])
    ours = follow(Sequential([0.25, lambda step: 0.9**step], boundaries=[7]), 300)
    for lr in ours:
        assert lr == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        oracle.step()


@pytest.mark.parametrize("seed", range(5))
def test_resumed_at_random_steps(seed: int) -> None:
    schedule = Warmup(0.2, 7, then=sequential())
    assert follow(schedule, 90, saves=0.3, seed=seed) == follow(schedule, 90, saves=0.0)


def test_no_call_changes_a_state() -> None:
    schedule = Warmup(0.2, 0, then=sequential())
    state = schedule.init()
    before = copy.deepcopy(state)
    schedule.with_horizon(schedule.observe(schedule.advance(state), 1.0), 100)
    assert state == before


def test_each_schedule_without_a_horizon_gets_its_stretch() -> None:
    schedule = Sequential(
        [Linear(1.0), Warmup(0.5, 4, then=Cosine(1.0)), WarmupCosine(1.0, warmup_proportion=0.5)],
        boundaries=[10, 24],
    )
    state = schedule.with_horizon(schedule.init(), 44)
    fixed = Sequential(
        [
            Linear(1.0, steps=10),
            Warmup(0.5, 4, then=Cosine(1.0, steps=10)),
            WarmupCosine(1.0, warmup_steps=10, steps=20),
        ],
        boundaries=[10, 24],
    )
    assert state == fixed.init()
    assert schedule.with_horizon(state, 1000) == state
    assert [schedule.lr(state, k) for k in range(60)] == [fixed(k) for k in range(60)]


def test_a_horizon_of_its_own_stays() -> None:
    schedule = Warmup(0.5, 4, then=Cosine(1.0, steps=5))
    assert schedule.with_horizon(schedule.init(), 100) == schedule.init()


def test_what_the_composite_leaves_must_be_a_step_at_least() -> None:
    schedule = Warmup(0.5, 4, then=Cosine(1.0))
    with pytest.raises(ConfigurationError, match="Cosine: the run leaves it 0 steps"):
        schedule.with_horizon(schedule.init(), 4)
    state: ScheduleState = Warmup(0.5, 4, then=1.0).init()
    assert Warmup(0.5, 4, then=1.0).with_horizon(state, 2) == state


def test_an_unknown_horizon_inside_is_an_error() -> None:
    schedule = Sequential([0.1, Cosine(1.0)], boundaries=[5])
    assert schedule.lr(schedule.init(), 4) == 0.1
    with pytest.raises(UnknownLengthError, match="Cosine"):
        schedule.lr(schedule.init(), 5)


def test_scaled_multiplies_and_passes_everything_on() -> None:
    schedule = Scaled(PLATEAU, 0.1)
    state = schedule.init()
    assert state == PLATEAU.init()
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
