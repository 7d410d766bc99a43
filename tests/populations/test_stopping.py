"""Members that have stopped: they keep their bytes, and the others go on as they would have."""

from __future__ import annotations

from typing import Any

import pytest
from populations import batch, plain_net, program, trained

import functrain as ft
from functrain import schedules
from functrain.errors import ConfigurationError, NonFiniteError
from functrain.populations.stopping import with_members_of

RATES = {"lr": [0.01, 0.02, 0.03, 0.04]}


@pytest.mark.parametrize("batches", ["shared", "own"])
@pytest.mark.parametrize("indices", [[1], [0, 2], [0, 1, 3]])
def test_members_that_stopped_keep_their_bytes_and_others_go_on(batches: Any, indices: Any) -> None:
    pop = ft.population(program(ema=0.9, clip_norm=1.0), RATES, batches=batches)
    begun, _ = trained(pop, 2)
    expected, rows = trained(pop, 3, begun)
    stopped = pop.stopped(begun, indices)
    found, some = trained(pop, 3, stopped)
    for member in range(4):
        where = begun if member in indices else expected
        assert ft.tree.equal(pop.member(where, member), pop.member(found, member)), member
        assert bool(some[-1]["loss"][member].isnan()) == (member in indices)
    running = pop.running(found)
    assert running == [member for member in range(4) if member not in indices]
    assert ft.tree.equal(rows[-1]["accuracy"][running], some[-1]["accuracy"][running])
    assert found.counters.step == 5
    assert pop.member(found, indices[0]).counters.step == 2


def test_members_stop_at_different_steps() -> None:
    pop = ft.population(program(), RATES)
    state, _ = trained(pop, 1)
    state, _ = trained(pop, 1, pop.stopped(state, [3]))
    state = pop.stopped(state, [0, 3])
    assert [pop.member(state, member).counters.step for member in range(4)] == [2, 2, 2, 1]
    smaller, state = pop.only(state, [3, 1])
    assert smaller.running(state) == [1]
    assert smaller.member(state, 0).counters.step == 1


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.long)])
def test_compiled_and_donated_members_stop_with_the_same_bytes(backend: str) -> None:
    pop = ft.population(program(model=plain_net), RATES)
    fast = ft.donated(ft.compiled(pop, backend=backend))
    begun, _ = trained(fast, 2)
    expected, _ = trained(fast, 2, ft.copy(begun))
    found, _ = trained(fast, 2, fast.stopped(begun, [0, 1]))
    for member in (2, 3):
        assert ft.tree.equal(fast.member(expected, member), fast.member(found, member))


def test_a_member_that_stopped_goes_on_where_it_is_replaced() -> None:
    pop = ft.population(program(), RATES)
    state = pop.stopped(trained(pop, 1)[0], [0, 2])
    assert pop.running(pop.replaced(state, 0, by=1)) == [0, 1, 3]
    assert pop.running(pop.replaced(state, 1, by=2)) == [3]


def test_schedules_of_members_that_stopped_observe_nothing() -> None:
    plateaus = [schedules.Plateau(0.1, patience=0) for _ in range(2)]
    pop = ft.population(program(), {"lr": plateaus})
    state = pop.stopped(pop.observe(pop.init(), [1.0, 1.0]), [0])
    state = pop.observe(state, [None, 2.0])
    assert [one["lr"] for one in (state.scheduler["0"], state.scheduler["1"])] == pytest.approx(
        [0.1, 0.01]
    )


def test_all_members_that_run_being_non_finite_is_an_error() -> None:
    nan = float("nan")
    pop = ft.population(program(), RATES)
    state = pop.stopped(pop.init(), [0, 1])
    x, y = batch(0)
    with pytest.raises(NonFiniteError):
        pop.train_step(state, (x * nan, y))


def test_no_step_where_all_have_stopped() -> None:
    pop = ft.population(program(), RATES)
    with pytest.raises(ConfigurationError, match="all 4 members of this state have stopped"):
        trained(pop, 1, pop.stopped(pop.init(), range(4)))


def test_members_of_another_step_keep_its_counters() -> None:
    pop = ft.population(program(), RATES)
    first, _ = trained(pop, 1)
    second, _ = trained(pop, 2, first)
    mixed = with_members_of(with_members_of(first, first, range(4)), second, [1, 2])
    assert [pop.member(mixed, member).counters.step for member in range(4)] == [1, 3, 3, 1]
    for member, where in enumerate((first, second, second, first)):
        assert ft.tree.equal(pop.member(where, member), pop.member(mixed, member))


def test_members_of_another_state_keep_its_hyperparameters() -> None:
    pop = ft.population(program(), {"lr": [0.1, 0.2, 0.3]})
    state = pop.init()
    other = pop.replaced(state, 1, lr=0.5)
    found = with_members_of(state, other, [1, 2])
    assert pop.current(found).values["lr"] == (0.1, 0.5, 0.3)
