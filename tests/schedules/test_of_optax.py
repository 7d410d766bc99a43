"""Row 17: a second oracle, optax, where it has the same schedule. It counts in 32 bits."""

from __future__ import annotations

import math
from typing import Any

import pytest

from functrain import schedules

optax = pytest.importorskip("optax")
jax = pytest.importorskip("jax")

LR, STEPS = 0.3, 60
SGDR = [
    {"init_value": 0.0, "peak_value": LR, "decay_steps": steps, "warmup_steps": 0, "end_value": 0.0}
    for steps in (10, 20, 40)
]

PAIRS: dict[str, tuple[schedules.Schedule, Any]] = {
    "constant_schedule": (schedules.Constant(LR), optax.constant_schedule(LR)),
    "linear_schedule": (schedules.Linear(LR, 0.1, 40), optax.linear_schedule(LR, 0.1, 40)),
    "polynomial_schedule": (
        schedules.Polynomial(LR, power=2.5, end=0.1, steps=40),
        optax.polynomial_schedule(LR, 0.1, 2.5, 40),
    ),
    "exponential_decay": (
        schedules.Exponential(LR, 0.9, end=0.05),
        optax.exponential_decay(LR, 1, 0.9, end_value=0.05),
    ),
    "exponential_decay, staircase": (
        schedules.Step(LR, every=7, factor=0.5),
        optax.exponential_decay(LR, 7, 0.5, staircase=True),
    ),
    "cosine_decay_schedule": (schedules.Cosine(LR, steps=40), optax.cosine_decay_schedule(LR, 40)),
    "sgdr_schedule": (schedules.CosineRestarts(LR, 10, growth=2), optax.sgdr_schedule(SGDR)),
    "piecewise_constant_schedule": (
        schedules.Piecewise({0: LR, 10: LR * 0.5, 30: LR * 0.1}),
        optax.piecewise_constant_schedule(LR, {10: 0.5, 30: 0.2}),
    ),
    "piecewise_interpolate_schedule, linear": (
        schedules.Piecewise({0: LR, 10: LR * 0.5, 30: LR}, "linear"),
        optax.piecewise_interpolate_schedule("linear", LR, {10: 0.5, 30: 2.0}),
    ),
    "piecewise_interpolate_schedule, cosine": (
        schedules.Piecewise({0: LR, 10: LR * 0.5, 30: LR}, "cosine"),
        optax.piecewise_interpolate_schedule("cosine", LR, {10: 0.5, 30: 2.0}),
    ),
    "warmup_constant_schedule": (
        schedules.Warmup(0.1, 20, then=LR),
        optax.warmup_constant_schedule(0.1 * LR, LR, 20),
    ),
    "warmup_cosine_decay_schedule": (
        schedules.WarmupCosine(LR, warmup_steps=10, steps=50),
        optax.warmup_cosine_decay_schedule(0.0, LR, 10, 50),
    ),
    "warmup_exponential_decay_schedule": (
        schedules.Warmup(0.0, 10, then=schedules.Exponential(LR, 0.95)),
        optax.warmup_exponential_decay_schedule(0.0, LR, 10, 1, 0.95),
    ),
    "join_schedules": (
        schedules.Sequential(
            [schedules.Linear(LR, steps=20), schedules.Exponential(LR, 0.9)], boundaries=[20]
        ),
        optax.join_schedules(
            [optax.linear_schedule(LR, 0.0, 20), optax.exponential_decay(LR, 1, 0.9)], [20]
        ),
    ),
}


@pytest.mark.row(17)
@pytest.mark.parametrize("name", PAIRS)
def test_the_lrs_are_those_of_optax(name: str) -> None:
    ours, theirs = PAIRS[name]
    expected = [float(theirs(step)) for step in range(STEPS)]
    assert [ours(step) for step in range(STEPS)] == pytest.approx(expected, rel=2e-6, abs=1e-8)


@pytest.mark.row(17)
def test_one_cycle_is_that_of_optax_a_step_later() -> None:
    # optax has the top at int(p * T) and the end at T, torch (and we) at p * T - 1 and T - 1.
    schedule = schedules.OneCycle(LR, warmup_proportion=0.5, steps=40)
    theirs = optax.cosine_onecycle_schedule(40, LR, 0.5)
    assert float(theirs(20)) == pytest.approx(schedule(19), rel=1e-6)
    assert float(theirs(40)) == pytest.approx(schedule(39), rel=1e-6)
    assert math.isclose(float(theirs(0)), schedule(0), rel_tol=1e-6)


@pytest.mark.row(17)
def test_every_schedule_of_optax_is_known_here() -> None:
    known = {name.partition(",")[0] for name in PAIRS}
    elsewhere = {
        "cosine_onecycle_schedule": "above",
        "linear_onecycle_schedule": "Piecewise with four points",
        "inject_hyperparams": "no schedule",
        "inject_stateful_hyperparams": "no schedule",
    }
    names = {
        name
        for name in vars(optax.schedules)
        if not name.startswith("_") and callable(getattr(optax.schedules, name))
    }
    assert {n for n in names if n.islower()} - set(elsewhere) == known
