"""Members as states of their own: taken out, saved, stacked, chosen, replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from populations import batch, program, require_close, trained

import functrain as ft
from functrain import schedules, tree
from functrain.errors import ConfigurationError, UnsupportedError


def made(**values: Any) -> Any:
    given = values or {"lr": [0.1, 0.2, 0.3], "weight_decay": [0.0, 0.1, 0.2]}
    return ft.population(program(ema=0.9), given, seeds=[5, 6, 7])


def test_taking_out_saving_loading_and_stacking_is_the_identity(tmp_path: Path) -> None:
    pop = made()
    state, _ = trained(pop, 3)
    members = []
    for index in range(3):
        one = pop.member(state, index)
        ft.save(tmp_path / str(index), one)
        members.append(ft.load(tmp_path / str(index), like=one))
    again = pop.stacked(members)
    assert ft.tree.equal(state, again)
    assert ft.tree.equal(trained(pop, 2, state)[0], trained(pop, 2, again)[0])


def test_the_state_of_all_is_saved_and_loaded(tmp_path: Path) -> None:
    pop = made()
    state, _ = trained(pop, 3)
    ft.save(tmp_path / "all", state)
    loaded = ft.load(tmp_path / "all", like=pop.init())
    assert ft.tree.equal(state, loaded)
    assert ft.tree.equal(trained(pop, 2, state)[0], trained(pop, 2, loaded)[0])


def test_a_member_goes_on_alone() -> None:
    pop = made()
    state, _ = trained(pop, 2)
    one = pop.member(state, 1)
    assert (one.rng.seed, one.counters.step) == (6, 2)
    later, _ = trained(pop, 1, state)
    own, _ = pop.programs[1].train_step(one, batch(2))
    require_close(own, pop.member(later, 1))


def test_some_members_go_on_as_they_would_have() -> None:
    pop = made()
    state, _ = trained(pop, 2)
    some, chosen = pop.only(state, [2, 0])
    assert [one.recipe.optimizer.lr for one in some.programs] == [0.3, 0.1]
    expected, _ = trained(pop, 2, state)
    found, _ = trained(some, 2, chosen)
    assert ft.tree.equal(pop.member(expected, 2), some.member(found, 0))
    assert ft.tree.equal(pop.member(expected, 0), some.member(found, 1))


def test_a_member_is_replaced_by_another_with_other_hyperparameters() -> None:
    pop = made()
    state, _ = trained(pop, 2)
    before = ft.copy(state)
    later = pop.replaced(state, 0, by=2, lr=0.05)
    assert ft.tree.equal(before, state)
    current = pop.current(later)
    assert [one.recipe.optimizer.lr for one in current.programs] == [0.05, 0.2, 0.3]
    assert [one.recipe.optimizer.weight_decay for one in current.programs] == [0.2, 0.1, 0.2]
    mine, other = current.member(later, 0), pop.member(state, 2)
    assert ft.tree.equal([mine.params, mine.optimizer], [other.params, other.optimizer])
    assert mine.rng.seed == 5
    found, metrics = trained(pop, 1, later)
    assert metrics[0]["lr"].tolist() == [0.05, 0.2, 0.3]
    assert ft.tree.equal(pop.member(found, 1), pop.member(trained(pop, 1, state)[0], 1))
    own, _ = current.programs[0].train_step(mine, batch(2))
    require_close(own, current.member(found, 0))


def test_what_replaced_changes_is_saved_and_goes_with_the_chosen(tmp_path: Path) -> None:
    pop = made()
    state = pop.replaced(trained(pop, 2)[0], 0, by=2, lr=0.05)
    ft.save(tmp_path / "all", state)
    loaded = ft.load(tmp_path / "all", like=pop.init())
    assert trained(pop, 1, loaded)[1][0]["lr"].tolist() == [0.05, 0.2, 0.3]
    some, chosen = pop.only(loaded, [0, 2])
    assert trained(some, 1, chosen)[1][0]["lr"].tolist() == [0.05, 0.3]


def test_a_member_with_its_own_schedule_keeps_it_when_replaced() -> None:
    plateaus = [schedules.Plateau(rate, patience=0, observes="step") for rate in (0.1, 0.2, 0.3)]
    pop = made(lr=plateaus)
    state, _ = trained(pop, 3)
    later = pop.replaced(state, 0, by=2)
    assert later.scheduler["0"] == state.scheduler["0"]
    with pytest.raises(ConfigurationError, match="'lr'"):
        pop.replaced(state, 0, lr=0.1)


def test_a_field_of_a_schedule_is_replaced() -> None:
    base = program(ft.optim.SGD(schedules.Linear(0.1, steps=10)))
    pop = ft.population(base, {"lr.lr": [0.1, 0.2]})
    state, rows = trained(pop, 1)
    assert rows[0]["lr"].tolist() == [0.1, 0.2]
    _, rows = trained(pop, 1, pop.replaced(state, 0, **{"lr.lr": 1.0}))
    assert rows[0]["lr"].tolist() == pytest.approx([0.9, 0.18])


SCHEDULES: dict[str, Any] = {
    "lr.steps": schedules.Linear(0.1, steps=10),
    "lr.warmup_steps": schedules.WarmupCosine(0.1, warmup_steps=2),
    "lr.then.steps": schedules.Warmup(0.1, steps=2, then=schedules.Cosine(0.1, steps=10)),
    "lr.lr": schedules.Plateau(0.1, observes="step"),
}


@pytest.mark.parametrize("path", SCHEDULES)
def test_a_field_that_the_state_of_the_schedule_holds_is_not_replaced(path: str) -> None:
    given = {path: [4, 5], "weight_decay": [0.1, 0.2]}
    pop = ft.population(program(ft.optim.AdamW(SCHEDULES[path])), given)
    with pytest.raises(ConfigurationError, match=f"'{path}'.*no effect.*: weight_decay"):
        pop.replaced(pop.init(), 0, **{path: 6})


def test_a_replaced_member_keeps_the_fields_that_the_state_of_its_schedule_holds() -> None:
    optimizer = ft.optim.groups(
        [("0.*", ft.optim.SGD(0.1)), ("*", ft.optim.SGD(schedules.Linear(0.1, steps=10)))]
    )
    rates = [schedules.Linear(0.1, steps=5), schedules.Linear(0.2, steps=5)]
    pop = ft.population(program(optimizer), {"0.lr": rates, "1.lr.steps": [10, 20]})
    later = pop.replaced(pop.init(), 0, by=1)
    assert pop.current(later).values["1.lr.steps"] == (10, 20)


def test_members_are_stacked_by_the_population_that_has_their_hyperparameters() -> None:
    pop = made()
    state = pop.replaced(pop.init(), 0, lr=0.7)
    current = pop.current(state)
    again = current.stacked([pop.member(state, index) for index in range(3)])
    assert ft.tree.equal(state, again)
    assert trained(current, 1, again)[1][0]["lr"].tolist() == [0.7, 0.2, 0.3]


@pytest.mark.parametrize("other", [{"eps": [1e-8, 1e-7, 1e-6]}, {"lr": [0.1, 0.2, 0.3]}])
@pytest.mark.parametrize(
    "call",
    [
        lambda pop, state: trained(pop, 1, state),
        lambda pop, state: pop.eval_step(state, batch(0)),
        lambda pop, state: pop.current(state),
        lambda pop, state: pop.replaced(state, 0, by=1),
    ],
)
def test_a_state_with_other_hyperparameters_is_refused(other: Any, call: Any) -> None:
    with pytest.raises(ConfigurationError, match="got one with lr, weight_decay"):
        call(made(**other), made().init())


ONE_PROGRAM: dict[str, Any] = {
    "train_step": lambda pop, state: pop.programs[0].train_step(state, batch(0)),
    "eval_step": lambda pop, state: pop.programs[0].eval_step(state, batch(0)),
    "evaluate": lambda pop, state: ft.evaluate(pop.programs[0], state, [batch(0)]),
    "differentiable": lambda pop, state: ft.differentiable(pop.programs[0]).eval_step(
        state, batch(0)
    ),
    "predict": lambda pop, state: ft.predict(pop, state, [batch(0)]),
    "evaluating": lambda pop, state: pop.evaluating(state).__enter__(),
    "compiled": lambda pop, state: ft.compiled(pop.programs[0], backend="eager").train_step(
        state, batch(0)
    ),
}


@pytest.mark.parametrize("name", ONE_PROGRAM)
def test_the_state_of_a_population_is_refused_where_one_program_is_called(name: str) -> None:
    pop = made()
    with pytest.raises(UnsupportedError, match="got that of a population"):
        ONE_PROGRAM[name](pop, pop.init())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pop, state: pop.replaced(state, 0, lr=schedules.Linear(0.1)), "'lr' is a number"),
        (lambda pop, state: pop.member(state, 3), "index of a member, 0 to 2, got 3"),
        (lambda pop, state: pop.member(state, True), "index of a member, 0 to 2, got True"),
        (lambda pop, state: pop.member(state, 1.0), "index of a member, 0 to 2, got 1.0"),
        (lambda pop, state: pop.observe(state, 1.0), "a metric of each of the 3 members"),
        (lambda pop, state: pop.observe(state, [1.0, 2.0]), "a metric of each of the 3 members"),
        (lambda pop, state: ft.checked(pop), "checked takes one program, got a population"),
        (lambda pop, state: pop.only(state, []), "at least one member"),
        (lambda pop, state: pop.replaced(state, 0, momentum=0.5), "replaced: expected one of lr"),
        (lambda pop, state: pop.replaced(state, 0, weight_decay=-1.0), "weight_decay"),
        (lambda pop, state: pop.stacked([]), "expected 3 states"),
        (lambda pop, state: pop.train_step(pop.member(state, 0), None), "that of one program"),
        (lambda pop, state: pop.only(state, [0, 1])[0].train_step(state, None), "2 members"),
    ],
)
def test_calls_that_cannot_be_meant_are_refused(call: Any, message: str) -> None:
    pop = made()
    with pytest.raises(ConfigurationError, match=message):
        call(pop, pop.init())


def test_states_at_other_steps_are_not_stacked() -> None:
    pop = made()
    state, _ = trained(pop, 1)
    members = [pop.member(state, 0), *[pop.member(pop.init(), n) for n in (1, 2)]]
    with pytest.raises(ConfigurationError, match=r"counters.step is 1 in member 0"):
        pop.stacked(members)


def test_an_index_of_numpy_is_one() -> None:
    pop = made()
    state = pop.init()
    assert ft.tree.equal(pop.member(state, 2), pop.member(state, np.int64(2)))


def test_each_schedule_observes_the_evaluations_of_its_own_member() -> None:
    plateaus = [schedules.Plateau(0.1, patience=0, factor=0.5) for _ in range(3)]
    pop = made(lr=plateaus)
    state = pop.observe(pop.init(), torch.tensor([1.0, 1.0, 1.0]))
    state = pop.observe(state, torch.tensor([2.0, 0.5, 2.0]))
    assert trained(pop, 1, state)[1][0]["lr"].tolist() == [0.05, 0.1, 0.05]


def test_schedules_observe_by_the_hyperparameters_that_the_state_holds() -> None:
    optimizer = ft.optim.SGD(schedules.Plateau(0.1, patience=0, factor=0.5))
    pop = ft.population(program(optimizer), {"lr.factor": [0.5, 0.5]})
    state = pop.observe(pop.replaced(pop.init(), 0, **{"lr.factor": 0.25}), [1.0, 1.0])
    state = pop.observe(state, [2.0, 2.0])
    assert trained(pop, 1, state)[1][0]["lr"].tolist() == [0.025, 0.05]


def test_a_fork_with_another_seed_is_made_member_by_member() -> None:
    pop = ft.population(program(), seeds=[0, 1])
    state = pop.init()
    assert tree.diff(ft.fork(state), state) == []
    with pytest.raises(ConfigurationError, match=r"members have seeds of their own"):
        ft.fork(state, seed=7)
    other = pop.stacked([ft.fork(pop.member(state, i), seed=7 + i) for i in range(2)])
    assert [pop.member(other, i).rng.seed for i in range(2)] == [7, 8]
