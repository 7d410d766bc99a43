"""Laws of the step over random recipes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from recipes import programs

import functrain as ft
from functrain import tree
from functrain.errors import ConfigurationError


def begun(program: ft.Program, seed: int = 0) -> ft.TrainState:
    """Begin like a ``fit`` of 40 steps, for schedules that end with the run."""
    return program.with_horizon(program.init(seed), 40)


@given(
    made=programs(),
    seed=st.integers(0, 2**63 - 1),
    sizes=st.lists(st.integers(2, 5), min_size=1, max_size=3),
)
def test_a_step_is_pure(made: tuple[Any, ft.Program], seed: int, sizes: list[int]) -> None:
    case, program = made
    state = begun(program, seed)
    for number, size in enumerate(sizes):
        batch = case.batch(number, size)
        before = copy.deepcopy([tree.flatten(state), batch, torch.get_rng_state()])
        new, metrics = program.train_step(state, batch)
        program.eval_step(state, batch)
        assert tree.diff(before, [tree.flatten(state), batch, torch.get_rng_state()]) == []
        again, again_metrics = program.train_step(state, batch)
        assert tree.diff([new, metrics], [again, again_metrics]) == []
        state = new


@given(made=programs(), seed=st.integers(0, 2**31))
def test_donated_is_pure_bit_for_bit(made: tuple[Any, ft.Program], seed: int) -> None:
    case, program = made
    donating = ft.donated(program)
    pure, given_away = begun(program, seed), begun(program, seed)
    for number in range(3):
        pure, _ = program.train_step(pure, case.batch(number, 4))
        given_away, _ = donating.train_step(given_away, case.batch(number, 4))
    assert tree.diff(pure, given_away) == []


@given(made=programs(), seed=st.integers(0, 2**31))
def test_a_captured_step_is_pure_and_donation_changes_no_bit(
    made: tuple[Any, ft.Program], seed: int
) -> None:
    case, program = made
    try:
        capture = ft.compiled(program, backend="eager")
    except ConfigurationError:  # an optimizer of from_torch
        assume(False)
    donating = ft.donated(capture)
    eager = pure = begun(program, seed)
    given_away = ft.copy(pure)
    for number in range(3):
        batch = case.batch(number, 4)
        before = copy.deepcopy([tree.flatten(pure), batch, torch.get_rng_state()])
        new, metrics = capture.train_step(pure, batch)
        assert tree.diff(before, [tree.flatten(pure), batch, torch.get_rng_state()]) == []
        given_away, given_metrics = donating.train_step(given_away, batch)
        assert tree.diff([new, metrics], [given_away, given_metrics]) == []
        eager, expected = program.train_step(eager, batch)
        if number == 0:  # before rounding errors grow
            torch.testing.assert_close(metrics["loss"], expected["loss"], rtol=2e-2, atol=1e-3)
        pure = new


@given(made=programs())
def test_a_state_loads_as_saved(made: tuple[Any, ft.Program], tmp_path_factory: Any) -> None:
    case, program = made
    state, _ = program.train_step(begun(program), case.batch(0, 4))
    path = tmp_path_factory.mktemp("tree") / "state"
    ft.save(path, state)
    assert tree.diff(state, ft.load(path, like=state)) == []
