"""``fit`` with members that have stopped: evaluation, history, and the state that it returns."""

from __future__ import annotations

from typing import Any

import pytest
from populations import batch, program

import functrain as ft
from functrain.errors import ConfigurationError

RATES = {"lr": [0.01, 1e6, 0.1]}
OWN = [batch(number, 3) for number in range(3)]
RULE = ft.EarlyStop(patience=1)


def stopping_steps(pop: Any, state: Any) -> list[int]:
    return [pop.member(state, member).counters.step for member in range(len(pop))]


def test_own_batches_are_cut_to_the_members_that_are_running() -> None:
    pop = ft.population(program(), RATES, batches="own")
    run = ft.fit(pop, OWN, until="4 epochs", eval_data=OWN, early_stop=RULE)
    assert len(set(stopping_steps(pop, run.state))) > 1
    for member in range(3):
        data = [tuple(part[member] for part in each) for each in OWN]
        expected = ft.evaluate(pop.programs[member], pop.member(run.state, member), data)
        found = run.history.member(member).last("eval/loss")
        assert found == pytest.approx(expected["loss"], rel=1e-9)


def test_own_batches_of_other_members_are_refused_by_the_evaluation_of_some() -> None:
    pop = ft.population(program(), RATES, batches="own")
    state = pop.stopped(pop.init(), [1])
    larger = [batch(0, 4)]
    with pytest.raises(ConfigurationError, match=r"expected tensors of shape \[3, ...\].* got one"):
        ft.fit(pop, OWN, until="1 step", state=state, eval_data=larger)
