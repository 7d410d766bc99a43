"""Rows 16 and 17: our closed forms against the classes of torch.optim.lr_scheduler."""

from __future__ import annotations

import copy
import inspect
import json
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from torch.optim import lr_scheduler

import functrain as ft
from functrain.schedules import (
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    Lambda,
    Linear,
    MultiStep,
    OneCycle,
    Piecewise,
    Plateau,
    Polynomial,
    Schedule,
    Sequential,
    Step,
    from_torch,
)

STEPS, LR = 300, 0.3
Case = tuple[Schedule, dict[str, Any]]


def hyperbola(step: int) -> float:
    return 1 / (1 + 0.1 * step)


def inner(optimizer: Any) -> list[Any]:
    return [
        lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=20),
        lr_scheduler.StepLR(optimizer, step_size=50, gamma=0.5),
    ]


# By class of torch: ours, and torch's arguments. One that is a function takes the optimizer.
CASES: dict[str, list[Case]] = {
    "LambdaLR": [(Lambda(lambda step: LR * hyperbola(step)), {"lr_lambda": hyperbola})],
    "StepLR": [
        (Step(LR, every=7), {"step_size": 7}),
        (Step(LR, every=30, factor=0.7), {"step_size": 30, "gamma": 0.7}),
        (Step(LR, every=30, factor=2.0), {"step_size": 30, "gamma": 2.0}),
        (Step(LR, every=90, factor=0.0), {"step_size": 90, "gamma": 0.0}),
    ],
    "MultiStepLR": [
        (MultiStep(LR, [30, 80, 80, 200], 0.5), {"milestones": [30, 80, 80, 200], "gamma": 0.5}),
        (MultiStep(LR, [1]), {"milestones": [1]}),
        (MultiStep(LR, [0, 9, 90], 1.5), {"milestones": [0, 9, 90], "gamma": 1.5}),
    ],
    "ConstantLR": [(Piecewise({0: LR * 0.5, 40: LR}), {"factor": 0.5, "total_iters": 40})],
    "LinearLR": [
        (
            Linear(LR * 0.1, LR * 0.9, 123),
            {"start_factor": 0.1, "end_factor": 0.9} | {"total_iters": 123},
        ),
        (Linear(LR, steps=200), {"start_factor": 1, "end_factor": 0, "total_iters": 200}),
        (Linear(LR, 0.03, 200), {"start_factor": 1, "end_factor": 0.1, "total_iters": 200}),
    ],
    "ExponentialLR": [
        (Exponential(LR, 0.98), {"gamma": 0.98}),
        (Exponential(LR, 1.01, end=1e9), {"gamma": 1.01}),
        (Exponential(LR, 1.01), {"gamma": 1.01}),
    ],
    "PolynomialLR": [
        (Polynomial(LR, steps=5), {}),
        (Polynomial(LR, power=2.5, steps=250), {"total_iters": 250, "power": 2.5}),
        (Polynomial(LR, power=0.5, steps=300), {"total_iters": 300, "power": 0.5}),
    ],
    "CosineAnnealingLR": [
        (Cosine(LR, steps=300), {"T_max": 300}),
        (Cosine(LR, end=0.01, steps=300), {"T_max": 300, "eta_min": 0.01}),
        (Cosine(LR, end=0.9, steps=300), {"T_max": 300, "eta_min": 0.9}),
    ],
    "CosineAnnealingWarmRestarts": [
        (CosineRestarts(LR, period=25), {"T_0": 25}),
        (CosineRestarts(LR, 10, growth=2, end=1e-3), {"T_0": 10, "T_mult": 2, "eta_min": 1e-3}),
        (CosineRestarts(LR, 1, growth=3), {"T_0": 1, "T_mult": 3}),
    ],
    "CyclicLR": [
        (Cyclic(0.01, 0.5, up=17), {"base_lr": 0.01, "max_lr": 0.5, "step_size_up": 17}),
        (
            Cyclic(0.01, 0.5, up=9, down=20, mode="triangular2"),
            {"base_lr": 0.01, "max_lr": 0.5, "step_size_up": 9, "step_size_down": 20}
            | {"mode": "triangular2"},
        ),
        (
            Cyclic(0.01, 0.5, up=13, mode="exp_range", factor=0.99),
            {"base_lr": 0.01, "max_lr": 0.5, "step_size_up": 13, "gamma": 0.99}
            | {"mode": "exp_range"},
        ),
        (
            Cyclic(0.01, 0.5, up=13, mode="exp_range", factor=1.01),
            {"base_lr": 0.01, "max_lr": 0.5, "step_size_up": 13, "gamma": 1.01}
            | {"mode": "exp_range"},
        ),
    ],
    "OneCycleLR": [
        (OneCycle(1.0, steps=STEPS), {"max_lr": 1.0, "total_steps": STEPS}),
        (
            OneCycle(0.7, steps=STEPS, warmup_proportion=0.41, shape="linear", three_phase=True),
            {"max_lr": 0.7, "total_steps": STEPS, "pct_start": 0.41, "three_phase": True}
            | {"anneal_strategy": "linear"},
        ),
        (
            OneCycle(0.7, steps=STEPS, three_phase=True, div_factor=3, final_div_factor=50),
            {"max_lr": 0.7, "total_steps": STEPS, "three_phase": True}
            | {"div_factor": 3, "final_div_factor": 50},
        ),
        (
            OneCycle(0.7, steps=STEPS, div_factor=0.5, final_div_factor=0.1),
            {"max_lr": 0.7, "total_steps": STEPS, "div_factor": 0.5, "final_div_factor": 0.1},
        ),
        (
            OneCycle(0.7, steps=STEPS, warmup_proportion=0.0),
            {"max_lr": 0.7, "total_steps": STEPS, "pct_start": 0.0},
        ),
    ],
    "SequentialLR": [
        (
            Sequential([Linear(LR * 0.01, LR, 20), Step(LR, every=50, factor=0.5)], [20]),
            {"schedulers": inner, "milestones": [20]},
        )
    ],
    "ReduceLROnPlateau": [
        (Plateau(LR), {}),
        (
            Plateau(LR, factor=0.5, patience=3, cooldown=2, min_lr=0.01, threshold_mode="abs"),
            {"factor": 0.5, "patience": 3, "cooldown": 2, "min_lr": 0.01}
            | {"threshold_mode": "abs"},
        ),
    ],
}
ONLY_FROM_TORCH = {
    "MultiplicativeLR": "its lr is a product over all steps before: no closed form",
    "ChainedScheduler": "its parts multiply one shared lr; give one formula, or Scaled",
}
each_case = pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, case, id=f"{name}-{index}")
        for name, cases in CASES.items()
        for index, case in enumerate(cases)
    ],
)


def classes_of_torch() -> set[str]:
    return {
        name
        for name, value in vars(lr_scheduler).items()
        if inspect.isclass(value)
        and issubclass(value, lr_scheduler.LRScheduler)
        and not name.startswith("_")
        and value is not lr_scheduler.LRScheduler
    }


def metrics() -> list[float]:
    source = random.Random(1)
    noisy = [2.0 ** (-step / 50) + source.uniform(-0.05, 0.05) for step in range(STEPS)]
    noisy[40] = math.nan
    return noisy


def by_torch(name: str, arguments: dict[str, Any]) -> list[float]:
    """Return the lrs of torch, by its closed form where it has one: no rounding adds up there."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=LR, momentum=0.9)
    built = {key: v(optimizer) if v is inner else v for key, v in arguments.items()}
    scheduler: Any = getattr(lr_scheduler, name)(optimizer, **copy.copy(built))
    lrs = []
    for step, metric in enumerate(metrics()):
        if hasattr(scheduler, "_get_closed_form_lr"):
            scheduler.last_epoch = step
            lrs.append(float(scheduler._get_closed_form_lr()[0]))
            continue
        lrs.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        if step + 1 < STEPS:
            scheduler.step(*([metric] if name == "ReduceLROnPlateau" else []))
    return lrs


def by_ours(
    schedule: Schedule, resumed: Callable[[int, Any], Any] = lambda step, state: state
) -> list[float]:
    state, lrs = schedule.init(), []
    for step, metric in enumerate(metrics()):
        lrs.append(schedule.lr(state, step))
        state = resumed(step, schedule.observe(schedule.advance(state), metric))
    return lrs


@pytest.mark.row(16)
def test_every_class_of_torch_is_matched_by_ours_or_has_a_reason() -> None:
    assert not set(CASES) & set(ONLY_FROM_TORCH)
    assert set(CASES) | set(ONLY_FROM_TORCH) == classes_of_torch()


@pytest.mark.row(17)
@each_case
def test_the_lrs_are_those_of_torch(name: str, case: Case) -> None:
    schedule, arguments = case
    expected = by_torch(name, arguments)
    assert len(set(expected)) > 1
    assert by_ours(schedule) == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.row(17)
@each_case
def test_the_lrs_are_the_same_after_20_saves_at_random_steps(name: str, case: Case) -> None:
    schedule, _ = case
    at = set(random.Random(name).sample(range(STEPS), 20))

    def resumed(step: int, state: Any) -> Any:
        if step not in at:
            return state
        if step % 2 or "inf" in repr(state):  # orjson writes what is not finite as null
            return json.loads(json.dumps(state))
        return orjson.loads(orjson.dumps(state))

    assert by_ours(schedule, resumed) == by_ours(schedule)


@pytest.mark.row(17)
@pytest.mark.parametrize(
    "schedule",
    [
        schedule
        for name, cases in CASES.items()
        for schedule, _ in cases
        if name != "ReduceLROnPlateau"
    ],
    ids=lambda schedule: re.sub(r" at 0x\w+", "", repr(schedule)),
)
def test_any_lr_without_replay(schedule: Schedule) -> None:
    assert [schedule(step) for step in range(STEPS)] == by_ours(schedule)


@pytest.mark.row(16)
def test_schedules_survive_a_file(tmp_path: Path) -> None:
    schedules = [schedule for cases in CASES.values() for schedule, _ in cases]
    schedules.append(from_torch(lr_scheduler.ExponentialLR, lr=LR, gamma=0.9))
    states = []
    for schedule in schedules:
        state = schedule.init()
        for _ in range(123):
            state = schedule.observe(schedule.advance(state), 1.0)
        states.append(state)
    ft.save(tmp_path / "states", {"schedules": states})
    assert ft.load(tmp_path / "states") == {"schedules": states}
