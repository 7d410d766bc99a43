"""Runs of populations that are resumed with other rules, or other hyperparameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from populations import batch, program

import functrain as ft
from functrain.checkpoint.run_state import LoopState
from functrain.errors import RunChangedError
from functrain.populations.decisions import MemberDecisions
from functrain.training.decisions import Decisions
from functrain.training.early_stopping import Halving
from functrain.training.early_stopping.rule import as_rule

DATA = [batch(number) for number in range(2)]
FIRST, SECOND = ft.EarlyStop(patience=1), ft.EarlyStop(patience=3)
RULES: dict[str, Any] = {
    "one": FIRST,
    "another kind": ft.Overfit(patience=9),
    "two": [FIRST, SECOND],
    "two, the second of another kind": [FIRST, ft.Overfit(patience=9)],
    "two, the first of another kind": [ft.Overfit(patience=9), FIRST],
    "halving": Halving(every=9),
    "halving and one": [Halving(every=9), SECOND],
    "two halvings": [Halving(every=9), Halving(every=8)],
}


def population(*rates: float) -> Any:
    return ft.population(program(), {"lr": list(rates or (0.01, 0.1))})


def decisions(rule: Any, pop: bool) -> Decisions:
    if pop:
        return MemberDecisions.of(population(), as_rule(rule), None)
    return Decisions.of(program(), as_rule(rule), None)


@pytest.mark.parametrize("before", RULES)
@pytest.mark.parametrize("pop", [True, False])
def test_rules_of_another_kind_or_number_begin_from_scratch(before: str, pop: bool) -> None:
    old = decisions(RULES[before], pop)
    loop = LoopState.initial(old.initial())
    assert old.resumed(loop) is loop
    for after, rule in RULES.items():
        new = decisions(rule, pop)
        if after != before:
            assert new.resumed(loop, old.record()).early_stop == new.initial()


def test_a_resumed_population_takes_another_rule(tmp_path: Path) -> None:
    options: Any = {"eval_data": DATA, "directory": tmp_path}
    ft.fit(population(), DATA, until="1 epoch", early_stop=FIRST, **options)
    run = ft.fit(population(), DATA, until="2 epochs", early_stop=ft.Overfit(), **options)
    assert (run.reason, run.new_steps) == ("max_epochs", 2)


def test_a_replaced_population_resumes_by_its_current_one(tmp_path: Path) -> None:
    pop = population(0.01, 0.1)
    begun = pop.replaced(pop.init(), 0, lr=0.05)
    ft.fit(pop, DATA, until="1 epoch", state=begun, directory=tmp_path / "cut")
    run = ft.fit(pop.current(begun), DATA, until="2 epochs", directory=tmp_path / "cut")
    whole = ft.fit(pop, DATA, until="2 epochs", state=begun)
    assert run.history["lr"][-1] == [0.05, 0.1]
    assert ft.tree.equal(run.state, whole.state)
    with pytest.raises(RunChangedError, match=r"lr is \[0.05, 0.1\] in its checkpoint, got"):
        ft.fit(population(0.02, 0.1), DATA, until="3 epochs", directory=tmp_path / "cut")
