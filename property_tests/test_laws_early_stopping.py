"""Early stopping and the best value agree with a plain loop over the values."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trying import tried

import functrain as ft
from functrain.errors import ConfigurationError, MissingMetricWarning
from functrain.training.early_stopping.rule import FirstOf, best_after

# Few different values, so that equal ones and those just at a margin occur.
values = st.lists(
    st.sampled_from(
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.5, -1.5, -1.0, -0.5, math.nan, math.inf, -math.inf]
    )
    | st.floats(-2, 2),
    min_size=1,
    max_size=30,
)
modes = st.sampled_from(["min", "max"])
rules = st.builds(
    ft.EarlyStop,
    patience=st.integers(1, 5),
    mode=modes,
    min_delta=st.sampled_from([0.0, 0.25, 0.5]),
    relative=st.booleans(),
    lower=st.none() | st.just(-1.5),
    upper=st.none() | st.just(1.5),
)


def stopped_at(rule: ft.EarlyStop, values: list[float]) -> int | None:
    """The oracle: the value at which a run ends, from the values alone."""
    sign = 1 if rule.mode == "min" else -1
    best, since = math.inf, 0
    for index, value in enumerate(values):
        if rule.lower is not None and value < rule.lower:
            return index
        if rule.upper is not None and (math.isnan(value) or value > rule.upper):
            return index
        margin = 0.0
        if best < math.inf:
            margin = rule.min_delta * abs(best) if rule.relative else rule.min_delta
        if math.isfinite(value) and sign * value < best - margin:
            best, since = sign * value, 0
            continue
        since += 1
        if since == rule.patience:
            return index
    return None


def watch_call(rule: ft.EarlyStop, values: list[float]) -> int | None:
    state = rule.init()
    for index, value in enumerate(values):
        before = json.dumps(state)
        state = rule.observe(state, {"eval/loss": value})
        again = rule.observe(json.loads(before), {"eval/loss": value})
        assert again == state, "it does not go on from a saved state as from its own"
        if state["stop"]:
            return index
    return None


@pytest.mark.row(25)
@tried(300)
@given(rule=rules, values=values)
def test_a_run_stops_where_a_plain_loop_says(rule: ft.EarlyStop, values: list[float]) -> None:
    assert watch_call(rule, values) == stopped_at(rule, values)


@tried(100)
@given(rules=st.lists(rules, min_size=1, max_size=3), values=values)
def test_the_first_of_several_rules_ends_a_run(
    rules: list[ft.EarlyStop], values: list[float]
) -> None:
    found = [at for at in (stopped_at(rule, values) for rule in rules) if at is not None]
    assert watch_call(FirstOf(rules), values) == min(found, default=None)


@pytest.mark.row(26)
@tried(100)
@given(values=values, mode=modes)
def test_the_best_is_the_first_of_the_finite_extremes(values: list[float], mode: str) -> None:
    best = {"value": None, "step": None}
    for step, value in enumerate(values):
        best = best_after(best, value, step, mode)
    finite = [value for value in values if math.isfinite(value)]
    extreme = (min if mode == "min" else max)(finite, default=None)
    assert best["value"] == extreme
    assert best["step"] == (None if extreme is None else values.index(extreme))


def test_the_defaults_of_a_rule() -> None:
    plain = ft.EarlyStop("loss", patience=5, mode=None, min_delta=0.0, relative=False)
    assert plain == ft.EarlyStop()
    assert plain.lower is plain.upper is None


@pytest.mark.parametrize(
    "wrong", [{"patience": 0}, {"mode": "least"}, {"min_delta": -0.1}], ids=str
)
def test_an_invalid_rule_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        ft.EarlyStop(**wrong)


def test_a_missing_metric_is_awaited() -> None:
    rule = ft.EarlyStop("accuracy", patience=1)
    with pytest.warns(MissingMetricWarning, match="accuracy"):
        assert rule.observe(rule.init(), {"eval/loss": 1.0}) == rule.init()
