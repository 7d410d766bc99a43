"""``PopulationBasedTraining``: exploit and explore between evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def test_a_program_alone_has_no_members() -> None:
    with pytest.raises(ConfigurationError, match="replaces members of a population"):
        ft.fit(
            program(),
            DATA,
            until="1 epoch",
            eval_data=DATA,
            early_stop=PopulationBasedTraining(BOUNDS),
        )


def test_members_that_have_stopped_take_no_part() -> None:
    rules = [Halving(least=3, keep=0.7), PopulationBasedTraining(BOUNDS)]
    watch = Watch()
    run = fit(rules, listeners=[watch])
    stopped = [n for n in range(4) if n not in made().running(run.state)]
    assert len(stopped) == 1
    assert watch.events
    assert all(stopped[0] not in (event.member, event.by) for event in watch.events)
