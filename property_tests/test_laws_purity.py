"""The law of purity over random models and recipes, and its consequences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recipes import trainable
from trying import tried

import functrain as ft
from functrain import tree
from functrain.testing import check_complete, check_pure
from functrain.testing.strategies import Case

STEPS = 40
seeds = st.integers(0, 2**63 - 1)
sizes = st.integers(4, 7)  # half of it is enough for batch statistics


def begun(program: ft.Program, seed: int) -> ft.TrainState:
    return program.with_horizon(program.init(seed), STEPS)


def after(program: ft.Program, state: ft.TrainState, batches: list[Any]) -> ft.TrainState:
    for batch in batches:
        state, _ = program.train_step(state, batch)
    return state


def memory(state: ft.TrainState) -> set[int]:
    tensors = [leaf for leaf in tree.flatten(state).values() if isinstance(leaf, torch.Tensor)]
    return {each.untyped_storage().data_ptr() for each in tensors if each.numel()}


@pytest.mark.row(52)
@tried(80)
@given(case=trainable(), seed=seeds, size=sizes, donates=st.booleans())
def test_a_step_is_pure(case: Case, seed: int, size: int, donates: bool) -> None:
    program = case.program()
    state = after(program, begun(program, seed), [case.batch(0, 4)])
    check_pure(ft.donated(program) if donates else program, state, case.batch(1, size))


@pytest.mark.row(51)
@tried(60)
@given(case=trainable(), seed=seeds, sizes=st.lists(sizes, min_size=1, max_size=4))
def test_donated_is_pure_bit_for_bit(case: Case, seed: int, sizes: list[int]) -> None:
    program = case.program()
    batches = [case.batch(number, size) for number, size in enumerate(sizes)]
    expected = after(program, begun(program, seed), batches)
    assert tree.diff(expected, after(ft.donated(program), begun(program, seed), batches)) == []


@pytest.mark.row(54)
@tried(60)
@given(case=trainable(), seed=seeds, other=seeds, at=st.integers(0, 3))
def test_forks_are_independent(case: Case, seed: int, other: int, at: int) -> None:
    program = case.program()
    donating = ft.donated(program)
    batches = [case.batch(number, 4) for number in range(4)]
    expected = after(program, begun(program, seed), batches)
    trunk = after(program, begun(program, seed), batches[:at])
    same, apart = ft.fork(trunk), ft.fork(trunk, seed=other)
    assert memory(trunk).isdisjoint(memory(same))
    assert memory(trunk).isdisjoint(memory(apart))
    after(donating, apart, batches[at:])  # writes over its own memory
    assert tree.diff(expected, after(donating, same, batches[at:])) == []
    assert tree.diff(expected, after(program, trunk, batches[at:])) == []
    disturbed = ft.fork(trunk, seed=other)
    assert (disturbed.rng.seed, trunk.rng.seed) == (other, seed)


@tried(60)
@given(case=trainable(), seed=seeds, many=st.integers(0, 3))
def test_where_a_state_comes_from_is_forgotten(
    case: Case, seed: int, many: int, tmp_path_factory: Any
) -> None:
    """Steps from a saved and loaded state equal steps from the state."""
    program = case.program()
    batches = [case.batch(number, 4) for number in range(many + 2)]
    state = after(program, begun(program, seed), batches[:many])
    path = ft.save(tmp_path_factory.mktemp("state") / "state", state)
    torch.rand(3)  # as in another process
    loaded = ft.load(path, like=state)
    assert tree.diff(state, loaded) == []
    rest = batches[many:]
    assert tree.diff(after(program, state, rest), after(program, loaded, rest)) == []


@tried(40)
@given(case=trainable(), seed=seeds, batches=st.lists(st.integers(0, 9), min_size=2, max_size=2))
def test_an_evaluation_leaves_no_trace(case: Case, seed: int, batches: list[int]) -> None:
    program = case.program()
    one, two = (case.batch(number, 4) for number in batches)
    state = after(program, begun(program, seed), [one])
    expected, found = after(program, state, [two]), program.eval_step(state, two)
    again = program.eval_step(state, two)
    assert tree.diff([expected, found], [after(program, state, [two]), again]) == []


@pytest.mark.row(58)
@pytest.mark.slow
@tried(10)
@given(case=trainable(), seed=seeds)
def test_all_that_changes_is_a_leaf(case: Case, seed: int) -> None:
    program = case.program()
    check_complete(program, begun(program, seed), case.batch(0, 4))
