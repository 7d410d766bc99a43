"""Row 20: Plateau is torch's ReduceLROnPlateau over any sequence of metrics."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from functrain.errors import MissingMetricWarning, ScheduleStateError
from functrain.schedules import Plateau

options = st.fixed_dictionaries(
    {
        "factor": st.sampled_from([0.0, 0.1, 0.5, 0.99]),
        "patience": st.integers(0, 3),
        "threshold": st.sampled_from([0.0, 1e-4, 0.1, 1.0, 3.0]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "mode": st.sampled_from(["min", "max"]),
        "cooldown": st.integers(0, 3),
        "min_lr": st.sampled_from([0.0, 0.01, 0.4]),
        "eps": st.sampled_from([0.0, 1e-8, 0.25]),
    }
)
levels = st.sampled_from([-1.0, 0.0, 0.5, 0.95, 1.0, 1.00005, math.nan, math.inf, -math.inf])


@pytest.mark.row(20)
@given(options=options, metrics=st.lists(levels | st.floats(), max_size=60))
def test_equal_to_torch(options: dict[str, Any], metrics: list[float]) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.5)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
    schedule = Plateau(0.5, **options)
    state = schedule.init()
    for step, metric in enumerate(metrics):
        oracle.step(metric)
        state = json.loads(json.dumps(schedule.observe(schedule.advance(state), metric)))
        assert schedule.lr(state, step) == optimizer.param_groups[0]["lr"]
        assert state["best"] == oracle.best
        assert state["misses"] == oracle.num_bad_epochs
        assert state["cooldown"] == oracle.cooldown_counter


def test_a_reduction_by_eps_is_not_made() -> None:
    schedule = Plateau(0.5, factor=0.5, patience=0, eps=0.25)
    state = schedule.observe(schedule.observe(schedule.init(), 1.0), 1.0)
    assert state["lr"] == 0.5


def test_defaults_are_those_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.5)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    schedule = Plateau(0.5)
    for name in ("factor", "patience", "threshold", "threshold_mode", "cooldown", "eps"):
        assert getattr(schedule, name) == getattr(oracle, name)
    assert schedule.min_lr == oracle.default_min_lr
    assert (schedule.mode, oracle.mode) == (None, "min")  # what numbers without a name are taken by
    assert schedule.observe(schedule.init(), 1.0) == Plateau(0.5, mode="min").observe(
        Plateau(0.5, mode="min").init(), 1.0
    )


@pytest.mark.row(20)
def test_a_missing_metric_is_a_no_op_with_a_notice() -> None:
    schedule = Plateau(1.0, patience=0)
    state = schedule.observe(schedule.init(), 1.0)
    with pytest.warns(MissingMetricWarning, match="no metric"):
        assert schedule.observe(state, None) is state


def test_a_tensor_may_be_the_metric() -> None:
    schedule = Plateau(1.0)
    state = schedule.observe(schedule.init(), torch.tensor(2.0))  # type: ignore[arg-type]
    assert state["best"] == 2.0
    assert type(state["best"]) is float


def test_observing_does_not_change_the_state() -> None:
    schedule = Plateau(1.0, patience=0)
    state = schedule.init()
    before = dict(state)
    schedule.observe(schedule.observe(state, 1.0), 2.0)
    assert state == before


def test_no_step_determines_the_lr() -> None:
    with pytest.raises(ScheduleStateError, match=r"schedule\.lr\(state, step\)"):
        Plateau(1.0)(3)
