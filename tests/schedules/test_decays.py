"""Schedules with an end: warmups as in transformers, and the length that a run gives them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functrain.errors import ConfigurationError, UnknownLengthError
from functrain.schedules import (
    Cosine,
    Linear,
    OneCycle,
    Polynomial,
    Schedule,
    WarmupCosine,
    WarmupLinear,
    WarmupStableDecay,
)

STEPS = 300
Make = Callable[..., Schedule]
MAKERS: dict[str, Make] = {
    "Linear": Linear,
    "Cosine": Cosine,
    "WarmupLinear": partial(WarmupLinear, warmup_steps=3),
    "WarmupCosine": partial(WarmupCosine, warmup_steps=3),
}
OPEN_ENDED: dict[str, Make] = {
    **MAKERS,
    "Polynomial": Polynomial,
    "OneCycle": OneCycle,
    "WarmupStableDecay": partial(WarmupStableDecay, warmup_steps=3, decay_steps=4),
}
each_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
each_open_ended = pytest.mark.parametrize("make", OPEN_ENDED.values(), ids=OPEN_ENDED)
each_warmup = pytest.mark.parametrize("cls", [WarmupLinear, WarmupCosine])


def transformers_linear(step: int, warmup: int, total: int) -> float:
    """The factor in `get_linear_schedule_with_warmup` of transformers."""
    if step < warmup:
        return float(step) / float(max(1, warmup))
    return max(0.0, float(total - step) / float(max(1, total - warmup)))


def transformers_cosine(step: int, warmup: int, total: int) -> float:
    """The factor in `get_cosine_schedule_with_warmup` of transformers, up to `total`."""
    if step < warmup:
        return float(step) / float(max(1, warmup))
    progress = float(step - warmup) / float(max(1, total - warmup))
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * 0.5 * 2.0 * progress)))


@pytest.mark.row(18)
@pytest.mark.parametrize("warmup", [0, 1, 40, 299])
@pytest.mark.parametrize(
    ("cls", "factor"), [(WarmupLinear, transformers_linear), (WarmupCosine, transformers_cosine)]
)
def test_warmups_are_those_of_transformers(cls: Any, factor: Any, warmup: int) -> None:
    schedule = cls(0.3, warmup_steps=warmup, steps=STEPS)
    ours = [schedule(step) for step in range(STEPS + 1)]
    expected = [0.3 * factor(step, warmup, STEPS) for step in range(STEPS + 1)]
    assert ours == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.row(18)
@each_warmup
@given(warmup=st.integers(1, 50), decay=st.integers(1, 50), lr=st.floats(1e-6, 10))
def test_the_corners_are_exact(cls: Any, warmup: int, decay: int, lr: float) -> None:
    schedule = cls(lr, warmup_steps=warmup, steps=warmup + decay)
    assert schedule(0) == 0.0
    assert schedule(warmup) == lr
    assert schedule(warmup + decay) == schedule(warmup + decay + 1000) == 0.0


@each_maker
def test_past_the_horizon_the_lr_stays_at_its_end(make: Make) -> None:
    schedule = make(0.7, end=0.1, steps=10)
    assert [schedule(step) for step in (10, 11, 15, 20, 10**6)] == [0.1] * 5


@each_warmup
@pytest.mark.parametrize(("proportion", "warmup"), [(0.1, 7), (0.07, 5), (0.0, 0), (0.5, 35)])
def test_a_proportion_is_rounded_to_the_nearest_step(
    cls: Any, proportion: float, warmup: int
) -> None:
    schedule = cls(1.0, warmup_proportion=proportion, steps=70)
    assert [schedule(step) for step in range(80)] == [
        cls(1.0, warmup_steps=warmup, steps=70)(step) for step in range(80)
    ]


@each_open_ended
def test_the_run_fills_the_horizon_in_once(make: Make) -> None:
    open_ended, fixed = make(0.3), make(0.3, steps=20)
    state = open_ended.init()
    filled = open_ended.with_horizon(state, 20)
    assert filled == fixed.init()
    assert open_ended.with_horizon(filled, 1000) is filled
    assert fixed.with_horizon(fixed.init(), 1000) == fixed.init()
    assert state == open_ended.init()
    assert [open_ended.lr(filled, k) for k in range(30)] == [fixed(k) for k in range(30)]
    with pytest.raises(ConfigurationError, match=f"{type(fixed).__name__}: .*leaves"):
        open_ended.with_horizon(state, 0)


@each_warmup
def test_a_proportion_waits_for_the_horizon(cls: Any) -> None:
    schedule = cls(1.0, warmup_proportion=0.1)
    filled = schedule.with_horizon(schedule.init(), 200)
    assert filled == {"horizon": 200, "warmup": 20}


@each_open_ended
def test_an_unknown_horizon_is_an_error(make: Make) -> None:
    schedule = make(0.3)
    name = type(schedule).__name__
    message = rf"{name}.*steps=N.*ft\.fit\(until=.*ft\.iterate\(\.\.\., until="
    with pytest.raises(UnknownLengthError, match=message):
        schedule.lr(schedule.init(), 0)
    with pytest.raises(UnknownLengthError, match=name):
        schedule(0)


@each_maker
def test_a_changed_length_does_not_bend_the_curve_of_a_run(make: Make) -> None:
    begun, changed = make(0.3, steps=20), make(0.3, steps=50)
    state = json.loads(json.dumps(begun.init()))
    assert [changed.lr(state, k) for k in range(60)] == [begun(k) for k in range(60)]
    assert begun(10) != changed(10)


@each_warmup
def test_a_changed_warmup_does_not_bend_the_curve_of_a_run(cls: Any) -> None:
    begun = cls(0.3, warmup_steps=5, steps=20)
    changed = cls(0.3, warmup_proportion=0.5, steps=20)
    assert [changed.lr(begun.init(), k) for k in range(30)] == [begun(k) for k in range(30)]


@each_warmup
def test_warmup_is_given_in_one_way(cls: Any) -> None:
    both = {"warmup_steps": 1, "warmup_proportion": 0.1}
    for given_ways in ({}, both):
        with pytest.raises(ConfigurationError, match="exactly one of warmup_steps and warmup_prop"):
            cls(0.3, **given_ways)


@each_warmup
def test_a_warmup_leaves_steps_to_decay_in(cls: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{cls.__name__}: warmup_steps=10 leaves nothing"):
        cls(0.3, warmup_steps=10, steps=10)
    schedule = cls(0.3, warmup_steps=10)
    with pytest.raises(ConfigurationError, match="a horizon of 9 steps"):
        schedule.with_horizon(schedule.init(), 9)


@each_maker
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lr", -0.1),
        ("lr", "0.1"),
        ("end", -1.0),
        ("end", math.inf),
        ("steps", 0),
        ("steps", 1.5),
        ("steps", True),
    ],
)
def test_errors_name_the_field(make: Make, field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"\w+: {field}: expected .*got {value!r}"):
        make(**({"lr": 1.0} | {field: value}))


@each_warmup
@pytest.mark.parametrize(
    ("field", "value"), [("warmup_steps", -1), ("warmup_steps", 0.1), ("warmup_proportion", 1.1)]
)
def test_errors_name_the_warmup(cls: Any, field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{cls.__name__}: {field}: expected"):
        cls(1.0, **{field: value})
