"""Options that are numbers of NumPy, which counting and dividing arrays makes of integers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import functrain as ft
from functrain import data, schedules
from functrain.checkpoint.retention import Last
from functrain.distributed import Placement
from functrain.errors import ConfigurationError
from functrain.plotting.curves import rates

np = pytest.importorskip("numpy")


def _program(**options: Any) -> ft.Program:
    return ft.program(nn.Linear(2, 1), lambda m, b: m(b).mean(), ft.optim.SGD(0.1), **options)


_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "steps of a decay": lambda n: schedules.Cosine(1.0, steps=n),
    "every of a step": lambda n: schedules.Step(1.0, every=n),
    "a milestone": lambda n: schedules.MultiStep(1.0, [n]),
    "a boundary": lambda n: schedules.Sequential([1.0, 0.5], [n]),
    "a point": lambda n: schedules.Piecewise({0: 1.0, n: 0.5}),
    "steps of a curve": lambda n: rates(schedules.Linear(1.0), steps=n),
    "how many checkpoints are kept": lambda n: Last(n),
    "parts of an accumulation": lambda n: _program(accumulate=n),
    "ranks": lambda n: Placement(data=n),
    "length of a mixture": lambda n: data.Mixture({"a": [torch.ones(1, 2)]}, length=n).batches,
    "a seed of members": lambda n: ft.population(_program(), {"lr": [0.1, 0.2]}, seeds=n).seeds,
}


def _shown(value: Any) -> str:
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))


@pytest.mark.parametrize("option", _OPTIONS)
def test_an_integer_of_numpy_is_that_of_python(option: str) -> None:
    make = _OPTIONS[option]
    assert _shown(make(np.int64(3))) == _shown(make(3))


@pytest.mark.parametrize("wrong", [True, np.bool_(True), np.float32(3), "3", 0], ids=repr)
def test_what_is_no_integer_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="Last: count: expected an integer >= 1"):
        Last(wrong)


def test_milestones_may_be_an_array() -> None:
    steps = schedules.MultiStep(1.0, np.array([3, 5])).milestones
    assert [type(step) for step in steps] == [int, int]
