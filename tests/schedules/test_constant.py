"""Constant and Lambda, what becomes a schedule, and what the protocol gives to every one."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch

from functrain.errors import ConfigurationError, UnsupportedError
from functrain.schedules import Constant, Cosine, Lambda, Scaled, Schedule, Spike, as_schedule


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


class Own:
    """A schedule that does not inherit from ours."""

    def __call__(self, step: int) -> float:
        return 1.0

    def init(self) -> dict[str, Any]:
        return {}

    def lr(self, state: dict[str, Any], step: int) -> float:
        return 1.0

    def advance(self, state: dict[str, Any]) -> dict[str, Any]:
        return state

    def observe(self, state: dict[str, Any], metric: float | None) -> dict[str, Any]:
        return state

    def with_horizon(self, state: dict[str, Any], steps: int) -> dict[str, Any]:
        return state


def test_numbers_become_constants() -> None:
    assert as_schedule(0.5) == as_schedule(torch.tensor(0.5)) == Constant(0.5)
    assert as_schedule(1) == Constant(1.0)


def test_functions_become_lambdas() -> None:
    schedule = as_schedule(lambda step: 1 / (1 + step))
    assert isinstance(schedule, Lambda)
    assert schedule(3) == 0.25


def test_a_schedule_is_returned_as_it_is() -> None:
    schedule = Cosine(0.1, steps=10)
    assert as_schedule(schedule) is schedule


def test_a_class_of_the_same_shape_is_a_schedule() -> None:
    own, outer = Own(), Scaled(Own(), 0.5)
    assert isinstance(own, Schedule)
    assert as_schedule(own) is own
    assert outer(3) == 0.5
    assert outer.horizon() is None
    assert outer.observes == "evaluation"
    with pytest.raises(ConfigurationError, match="does not inherit from Schedule"):
        Spike(own)


@pytest.mark.parametrize("value", [True, None, "0.1", torch.ones(2), [0.1]])
def test_what_is_no_schedule(value: Any) -> None:
    with pytest.raises(UnsupportedError, match=type(value).__name__):
        as_schedule(value)


def test_a_class_must_be_called() -> None:
    with pytest.raises(UnsupportedError, match=r"Cosine is a class: call it"):
        as_schedule(Cosine)


def test_a_torch_scheduler_is_shown_the_way() -> None:
    optimizer = torch.optim.SGD([torch.zeros(())], lr=1.0)
    with pytest.raises(UnsupportedError, match="from_torch"):
        as_schedule(torch.optim.lr_scheduler.StepLR(optimizer, 1))
