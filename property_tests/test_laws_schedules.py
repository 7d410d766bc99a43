"""Schedules and optimizers drawn for runs pass the public checks of purity."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trying import tried

from functrain.testing import check_optimizer, check_schedule
from functrain.testing.strategies import optimizers, schedules


@pytest.mark.row(17)
@tried(60)
@given(schedule=schedules(), steps=st.integers(31, 60), seed=st.integers(0, 99))
def test_a_schedule_is_pure(schedule: Any, steps: int, seed: int) -> None:
    check_schedule(schedule, steps, seed=seed)


@pytest.mark.row(52)
@tried(40)
@given(optimizer=optimizers(lr=st.sampled_from([0.02, 0.1])))
def test_an_optimizer_is_pure(optimizer: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = {"0.weight": (4, 3), "0.bias": (4,), "1.weight": (2, 4)}
    params = {path: torch.randn(shape, generator=generator) for path, shape in shapes.items()}
    check_optimizer(optimizer, params)
