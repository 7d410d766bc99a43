"""Values that are accepted as a schedule."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from functrain.errors import ConfigurationError, UnsupportedError
from functrain.schedules import Constant, Cosine, Lambda, Scaled, Schedule, Spike, as_schedule


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
