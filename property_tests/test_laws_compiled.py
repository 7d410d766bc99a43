"""A compiled step is the eager one within bounds, and a run of it resumes bit for bit."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from described_runs import differences
from ends import CutAt
from hypothesis import assume, given
from hypothesis import strategies as st
from recipes import programs
from trying import tried

import functrain as ft
from functrain import tree
from functrain.errors import ConfigurationError
from functrain.testing import check_pure
from functrain.testing.strategies import Architecture

STEPS = 6
made = st.builds(
    Architecture,
    st.just("vector"),
    st.sampled_from(
        [("Linear",), ("Linear", "BatchNorm"), ("Linear", "Dropout"), ("Tied", "ReLU")]
    ),
)
recipes = st.fixed_dictionaries(
    {
        "optimizer": st.sampled_from(
            [
                ft.optim.SGD(lr=ft.schedules.Cosine(lr=0.05), momentum=0.9),
                ft.optim.AdamW(lr=0.01),
                ft.optim.Lion(lr=ft.schedules.Linear(lr=0.01)),
            ]
        ),
        "ema": st.sampled_from([None, ft.EMA(0.9, every=2)]),
        "clip_norm": st.sampled_from([None, 0.1]),
        "accumulate": st.sampled_from([1, 2]),
        "nonfinite": st.sampled_from(["raise", "skip"]),
    }
)


def compiled(architecture: Architecture, recipe: dict[str, Any], backend: str) -> ft.Program:
    return ft.compiled(architecture.program(**recipe), backend=backend)


def fit(program: ft.Program, architecture: Architecture, place: str, *listeners: Any) -> ft.Run:
    return ft.fit(
        program,
        ft.data.Batches(architecture.batch(7, 8), 2, seed=5),
        until=f"{STEPS} steps",
        eval_data=[architecture.batch(100, 4)],
        eval_every="2 steps",
        save_every="2 steps",
        directory=place,
        listeners=listeners,
    )


def check(
    architecture: Architecture, recipe: dict[str, Any], cuts: list[int], backend: str
) -> None:
    program = compiled(architecture, recipe, backend)
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        fit(program, architecture, one)
        for cut in [*sorted(cuts), STEPS]:
            again = compiled(architecture, recipe, backend)
            fit(again, architecture, two, CutAt(cut))
        assert differences(one, two) == []


@pytest.mark.row(50)
@tried(8)
@given(
    architecture=made,
    recipe=recipes,
    cuts=st.lists(st.integers(1, STEPS - 1), min_size=1, max_size=2),
)
def test_a_run_of_captured_steps_resumes(
    architecture: Architecture, recipe: dict[str, Any], cuts: list[int]
) -> None:
    check(architecture, recipe, cuts, "eager")


@pytest.mark.row(50)
@tried(10)
@given(architecture=made, recipe=recipes, seed=st.integers(0, 99))
def test_a_captured_step_is_pure_and_the_eager_one(
    architecture: Architecture, recipe: dict[str, Any], seed: int
) -> None:
    eager = architecture.program(**recipe)
    state, batch = eager.with_horizon(eager.init(seed), 40), architecture.batch(seed, 4)
    capture = ft.compiled(eager, backend="eager")
    check_pure(capture, state, batch)
    (one, seen), (two, found) = eager.train_step(state, batch), capture.train_step(state, batch)
    if "Dropout" not in architecture.blocks:  # whose masks are others
        torch.testing.assert_close(found["loss"], seen["loss"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found["grad_norm"], seen["grad_norm"], rtol=1e-4, atol=1e-6)
    assert tree.diff(one.counters, two.counters) == []
    assert [path for path, _ in tree.items(one)] == [path for path, _ in tree.items(two)]


@pytest.mark.row(51)
@tried(10)
@given(made=programs(), seed=st.integers(0, 2**31))
def test_donation_changes_no_bit_of_captured_steps(made: tuple[Any, ft.Program], seed: int) -> None:
    case, program = made
    try:
        capture = ft.compiled(program, backend="eager")
    except ConfigurationError:  # an optimizer of from_torch
        assume(False)
    donating = ft.donated(capture)
    pure = program.with_horizon(program.init(seed), 40)
    given_away = ft.copy(pure)
    _, expected = program.train_step(pure, case.batch(0, 4))
    for number in range(3):
        pure, metrics = capture.train_step(pure, case.batch(number, 4))
        given_away, given_metrics = donating.train_step(given_away, case.batch(number, 4))
        assert tree.diff([pure, metrics], [given_away, given_metrics]) == []
        if number == 0:  # before rounding errors grow
            torch.testing.assert_close(metrics["loss"], expected["loss"], rtol=2e-2, atol=1e-3)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.row(50)
def test_a_run_through_inductor_resumes() -> None:
    recipe = {"optimizer": ft.optim.AdamW(lr=0.01), "ema": 0.9, "clip_norm": 0.1}
    check(Architecture("vector", ("Linear", "Dropout")), recipe, [3], "inductor")
