"""``Halving``: a population of which the worse half leaves at each evaluation."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from populations import batch, program

import functrain as ft
from functrain.errors import ConfigurationError
from functrain.training.early_stopping import Halving

DATA = [batch(number) for number in range(2)]
RATES = {"lr": [0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 1e3, 1e6]}


def fit(rule: Any, **options: Any) -> ft.Run:
    pop = ft.population(program(), RATES)
    return ft.fit(pop, DATA, until="5 epochs", eval_data=DATA, early_stop=rule, **options)


def test_the_worse_half_leaves_at_each_evaluation() -> None:
    run = fit(Halving())
    rows = np.array(run.history["eval/loss"])
    assert np.isfinite(rows).sum(1).tolist() == [8, 4, 2, 1, 1]
    for before, after in itertools.pairwise(rows):
        left = np.isfinite(before) & ~np.isfinite(after)
        stays = np.isfinite(after)
        assert not left.any() or before[left].min() >= before[stays].max()


def test_intervals_shares_and_the_least_number() -> None:
    rows = np.array(fit(Halving(every=2, keep=0.7, least=5)).history["eval/loss"])
    assert np.isfinite(rows).sum(1).tolist() == [8, 8, 6, 6, 5]


def test_it_goes_with_rules_about_each_member() -> None:
    run = fit([Halving(every=4), ft.EarlyStop(upper=1e3)])
    first = np.array(run.history["eval/loss"])[0]
    steps = [4 - 2 * (value > 1e3) for value in first]
    pop = ft.population(program(), RATES)
    for member in range(8):
        if first[member] > 1e3:
            assert pop.member(run.state, member).counters.step == steps[member] == 2


def test_a_resumed_run_halves_as_an_uninterrupted_one(tmp_path: Any) -> None:
    whole = fit(Halving(every=2))
    pop = ft.population(program(), RATES)
    options: Any = {"eval_data": DATA, "early_stop": Halving(every=2), "directory": tmp_path}
    ft.fit(pop, DATA, until="1 epoch", **options)
    run = ft.fit(pop, DATA, until="5 epochs", **options)
    assert ft.tree.equal(whole.state, run.state)


def test_a_program_alone_has_nothing_to_rank() -> None:
    with pytest.raises(ConfigurationError, match="ranks the members of a population"):
        ft.fit(program(), DATA, until="1 epoch", eval_data=DATA, early_stop=Halving())
