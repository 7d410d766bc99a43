"""Populations in loops."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from populations import batch, program, trained

import functrain as ft
from functrain import schedules
from functrain.errors import UnsupportedError


def test_iterate_steps_a_population_and_fills_in_the_horizon_of_each_member() -> None:
    linear = [schedules.Linear(0.1), schedules.Linear(0.2)]
    pop = ft.population(program(), {"lr": linear, "weight_decay": [0.1, 0.2]})
    rates = []
    for state, metrics in ft.iterate(pop, pop.init(), [batch(0), batch(1)], until="4 steps"):
        rates.append(metrics["lr"].tolist())
    assert state.counters.step == 4
    assert rates == [pytest.approx([0.1 * left, 0.2 * left]) for left in (1, 0.75, 0.5, 0.25)]
    some, chosen = pop.only(state, [1])
    assert some.member(chosen, 0).counters.step == 4


@pytest.mark.parametrize("over", ["weights", "batches"])
def test_vmap_over_a_train_step_names_population(over: str) -> None:
    own = program()
    state = own.init()

    def step(weight: Any, given: Any) -> Any:
        params = {**state.params, "0.weight": weight}
        return own.train_step(attrs.evolve(state, params=params), given)[1]["loss"]

    one = state.params["0.weight"], batch(0)
    several = ft.tree.map(lambda leaf: torch.stack([leaf, leaf]), one)
    axes = (0, None) if over == "weights" else (None, 0)
    given = [two if axis == 0 else own for own, two, axis in zip(one, several, axes, strict=True)]
    with pytest.raises(UnsupportedError, match=r"functrain.population\(program"):
        torch.func.vmap(step, in_dims=axes)(*given)


def test_several_steps_in_one_call_of_a_population() -> None:
    pop = ft.population(program(), seeds=[1, 2])
    expected, _ = trained(pop, 3)
    found, metrics = ft.steps(pop, pop.init(), [batch(number) for number in range(3)])
    assert ft.tree.equal(expected, found)
    assert metrics["loss"].shape == (3, 2)
