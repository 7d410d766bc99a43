"""Constant and Lambda, and what the protocol gives to every schedule."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from functrain.errors import ConfigurationError
from functrain.schedules import Constant, Lambda, Schedule, as_schedule


def test_constant_stays() -> None:
    schedule = Constant(0.1)
    assert {schedule(step) for step in range(300)} == {0.1}


def test_an_int_becomes_a_float() -> None:
    assert type(Constant(1)(0)) is float


def test_lambda_asks_the_function() -> None:
    schedule = Lambda(lambda step: 0.1 * 0.5**step)
    assert [schedule(step) for step in range(3)] == [0.1, 0.05, 0.025]


def test_the_defaults_of_the_protocol_keep_the_state() -> None:
    schedule = Constant(0.1)
    state = schedule.init()
    assert schedule.advance(state) is state
    assert schedule.observe(state, 1.0) is state
    assert schedule.with_horizon(state, 100) is state


def test_a_schedule_is_a_frozen_value_that_prints_as_its_call() -> None:
    assert Constant(lr=0.1) == Constant(0.1)
    assert repr(Constant(0.1)) == "Constant(lr=0.1)"
    assert attrs.evolve(Constant(0.1), lr=0.2) == Constant(0.2)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Constant(0.1).base = 0.2  # type: ignore[misc]


def test_a_class_that_is_not_of_attrs_may_inherit() -> None:
    class Halving(Schedule):
        def lr(self, state: dict[str, Any], step: int) -> float:
            return 0.5**step

    assert Halving()(2) == 0.25
    assert "Halving object" in repr(Halving())


@pytest.mark.parametrize("lr", [-0.1, float("nan"), float("inf"), "0.1", None, True])
def test_errors_name_the_field(lr: Any) -> None:
    with pytest.raises(ConfigurationError, match="Constant: lr: expected"):
        Constant(lr)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), None, "fast"])
def test_an_invalid_rate_of_a_function_is_reported_with_the_step(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Lambda: .* at step 3 it returned"):
        Lambda(lambda step: value)(3)


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Lambda: expected a function of the step"):
        Lambda(3)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    np = pytest.importorskip("numpy")
    assert as_schedule(np.float32(0.5)) == Constant(0.5)
    assert Constant(np.float64(0.25))(0) == 0.25
