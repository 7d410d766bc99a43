"""Rules that rank members: the worse ones leave, or go on from the better ones."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from populations import batch, program

import functrain as ft
from functrain.errors import ConfigurationError
from functrain.testing import check_resumes
from functrain.training.early_stopping import Halving, PopulationBasedTraining

DATA = [batch(number) for number in range(2)]
VALUES = {"lr": [1e-5, 0.001, 0.003, 0.01], "weight_decay": [0.0, 0.1, 0.2, 0.3]}
BOUNDS = {"lr": (1e-5, 0.02)}


def made() -> Any:
    return ft.population(program(), VALUES)


def fit(rule: Any, **options: Any) -> ft.Run:
    given = {"until": "5 epochs", "eval_data": DATA, "early_stop": rule, **options}
    return ft.fit(made(), DATA, **given)


class Watch:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_member_replaced(self, event: Any) -> None:
        self.events.append(event)


def test_the_worst_member_goes_on_from_the_best() -> None:
    watch, pop = Watch(), made()
    before = fit(None, until="1 epoch")
    run = fit(PopulationBasedTraining(BOUNDS), until="1 epoch", listeners=[watch])
    losses = run.history["eval/loss"][0]
    best, worst = (choice(range(4), key=losses.__getitem__) for choice in (min, max))
    [event] = watch.events
    assert (event.member, event.by) == (worst, best)
    assert run.history["parent"] == [[best if n == worst else n for n in range(4)]]
    one, other = pop.current(run.state), pop.member(before.state, best)
    mine = one.member(run.state, worst)
    assert ft.tree.equal((mine.params, mine.optimizer), (other.params, other.optimizer))
    lr = VALUES["lr"][best]
    assert event.values["lr"] == one.values["lr"][worst]
    assert event.values["lr"] in (pytest.approx(0.8 * lr), pytest.approx(1.2 * lr))
    assert one.values["weight_decay"][worst] == VALUES["weight_decay"][best]
    for member in set(range(4)) - {worst}:
        assert ft.tree.equal(pop.member(before.state, member), pop.member(run.state, member))


def test_draws_follow_from_the_seed_and_bounds_hold() -> None:
    rules = [PopulationBasedTraining(BOUNDS, seed=seed, share=0.5) for seed in (0, 0, 1)]
    runs = [fit(rule) for rule in rules]
    assert ft.tree.equal(runs[0].state, runs[1].state)
    assert not ft.tree.equal(runs[0].state, runs[2].state)
    rates = torch.tensor(runs[0].history["lr"])
    assert rates.min() >= 1e-5
    assert rates.max() <= 0.02
    assert len(rates.unique()) > 4


def test_a_resumed_run_makes_the_same_exchanges(tmp_path: Path) -> None:
    rule = PopulationBasedTraining(BOUNDS, every=2)
    whole = fit(rule, until="6 epochs")
    for until in ("3 epochs", "4 epochs", "6 epochs"):
        run = fit(rule, until=until, directory=tmp_path)
    assert ft.tree.equal(whole.state, run.state)
    assert whole.history["parent"] == run.history["parent"]
    lineage = ft.load(tmp_path / "step-00000012").loop.early_stop["together"][0]["lineage"]
    assert [one["step"] for one in lineage] == [4, 8, 12]


def test_interruptions_leave_no_trace() -> None:
    def run() -> dict[str, Any]:
        rules = [PopulationBasedTraining(BOUNDS, share=0.5), Halving(every=3)]
        return {"program": made(), "data": DATA, "eval_data": DATA, "early_stop": rules}

    check_resumes(run, steps=10, cuts=[1, 3, 4, 8])


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"lrr": (0.1, 0.2)}, "lrr"),
        ({"eps": (0.1, 0.2)}, "replaced: expected one of lr, weight_decay"),
        ({"weight_decay": (-1.0, 0.2)}, "weight_decay"),
        ({"lr": (0.2, 0.1)}, "bounds: expected a mapping such as"),
    ],
)
def test_bounds_are_checked_before_training(bounds: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        fit(PopulationBasedTraining(bounds))


@pytest.mark.parametrize(
    ("option", "message"),
    [({"share": 0.6}, "share"), ({"factors": [0.0]}, "factors"), ({"every": 0}, "every")],
)
def test_options_are_checked(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        PopulationBasedTraining(BOUNDS, **option)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Halving(), "ranks the members of a population"),
        (PopulationBasedTraining(BOUNDS), "replaces members of a population"),
    ],
)
def test_a_program_alone_has_nothing_to_rank(rule: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ft.fit(program(), DATA, until="1 epoch", eval_data=DATA, early_stop=rule)


def test_members_that_have_stopped_take_no_part() -> None:
    rules = [Halving(least=3, keep=0.7), PopulationBasedTraining(BOUNDS)]
    watch = Watch()
    run = fit(rules, listeners=[watch])
    stopped = [n for n in range(4) if n not in made().running(run.state)]
    assert len(stopped) == 1
    assert watch.events
    assert all(stopped[0] not in (event.member, event.by) for event in watch.events)


RATES = {"lr": [0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 1e3, 1e6]}


def halved(rule: Any, **options: Any) -> ft.Run:
    pop = ft.population(program(), RATES)
    return ft.fit(pop, DATA, until="5 epochs", eval_data=DATA, early_stop=rule, **options)


def test_the_worse_half_leaves_at_each_evaluation() -> None:
    run = halved(Halving())
    rows = np.array(run.history["eval/loss"])
    assert np.isfinite(rows).sum(1).tolist() == [8, 4, 2, 1, 1]
    for before, after in itertools.pairwise(rows):
        left = np.isfinite(before) & ~np.isfinite(after)
        stays = np.isfinite(after)
        assert not left.any() or before[left].min() >= before[stays].max()


def test_intervals_shares_and_the_least_number() -> None:
    rows = np.array(halved(Halving(every=2, keep=0.7, least=5)).history["eval/loss"])
    assert np.isfinite(rows).sum(1).tolist() == [8, 8, 6, 6, 5]


def test_it_goes_with_rules_about_each_member() -> None:
    run = halved([Halving(every=4), ft.EarlyStop(upper=1e3)])
    first = np.array(run.history["eval/loss"])[0]
    steps = [4 - 2 * (value > 1e3) for value in first]
    pop = ft.population(program(), RATES)
    for member in range(8):
        if first[member] > 1e3:
            assert pop.member(run.state, member).counters.step == steps[member] == 2


def test_a_resumed_run_halves_as_an_uninterrupted_one(tmp_path: Any) -> None:
    whole = halved(Halving(every=2))
    pop = ft.population(program(), RATES)
    options: Any = {"eval_data": DATA, "early_stop": Halving(every=2), "directory": tmp_path}
    ft.fit(pop, DATA, until="1 epoch", **options)
    run = ft.fit(pop, DATA, until="5 epochs", **options)
    assert ft.tree.equal(whole.state, run.state)
