"""A run in which every step was skipped says so."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import functrain as ft
from functrain.errors import NonFiniteWarning

NAN, GOOD = torch.full((2, 2), float("nan")), torch.ones(2, 2)


def fit(data: list[Any], until: str, **options: Any) -> ft.Run:
    loss = lambda model, x: model(x).square().mean()  # noqa: E731
    made = options.pop("program", None) or ft.program(
        lambda: torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1), nonfinite="skip"
    )
    return ft.fit(made, data, until=until, **options)


def warnings_of(*arguments: Any, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True, action="always") as caught:
        fit(*arguments, **options)
    return [str(one.message) for one in caught if issubclass(one.category, NonFiniteWarning)]


@pytest.mark.parametrize("data", [[NAN], [NAN, NAN, NAN]])
def test_every_step_was_skipped(data: list[Any]) -> None:
    (message,) = warnings_of(data, "2 epochs")
    assert f"all {2 * len(data)} steps" in message


def test_one_step_was_made() -> None:
    assert warnings_of([NAN, GOOD, NAN], "1 epoch") == []


def test_only_the_steps_of_this_call_count(tmp_path: Path) -> None:
    assert warnings_of([GOOD, NAN, NAN], "1 step", directory=tmp_path) == []
    (message,) = warnings_of([GOOD, NAN, NAN], "3 steps", directory=tmp_path)
    assert "all 2 steps" in message
    assert warnings_of([GOOD, NAN, NAN], "3 steps", directory=tmp_path) == []
    assert warnings_of([GOOD, NAN, NAN], "4 steps", directory=tmp_path) == []


def test_every_step_of_a_member_was_skipped() -> None:
    loss = lambda model, x: model(x).square().mean()  # noqa: E731
    one = ft.program(lambda: torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1), nonfinite="skip")
    pop = ft.population(one, {"lr": [0.1, 0.2]})
    assert warnings_of([GOOD], "2 steps", program=pop) == []
    (message,) = warnings_of([NAN], "2 steps", program=pop)
    assert "members" in message


@pytest.mark.parametrize(("data", "warns"), [([100 * GOOD], False), ([NAN], True)])
def test_a_loss_scale_that_is_still_falling_is_no_fault(data: list[Any], warns: bool) -> None:
    loss = lambda model, x: model(x).square().mean()  # noqa: E731
    made = ft.program(
        lambda: torch.nn.Linear(2, 1),
        loss,
        ft.optim.SGD(lr=0.1),
        precision="fp16",
        nonfinite="skip",
    )
    assert bool(warnings_of(data, "2 steps", program=made)) is warns
