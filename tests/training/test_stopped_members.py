"""``fit`` with members that have stopped: evaluation, history, and the state that it returns."""

from __future__ import annotations

from typing import Any

import pytest
from populations import batch, program

import functrain as ft
from functrain.errors import ConfigurationError, ResumeWarning
from functrain.training.early_stopping import Halving

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


SHARED = [batch(number) for number in range(3)]


def test_the_best_state_trains_on_where_all_members_stand_at_the_same_step() -> None:
    pop = ft.population(program(), {"lr": [0.01, 0.02]})
    whole = ft.fit(pop, SHARED, until="3 epochs")
    best = ft.fit(pop, SHARED, until="2 epochs", eval_data=SHARED, restore_best=True)
    assert best.best["step"] == [6, 6]
    assert pop.running(best.state) == [0, 1]
    again = ft.fit(pop, SHARED, until="3 epochs", state=best.state)
    assert (again.reason, again.new_steps) == ("max_epochs", 3)
    assert ft.tree.equal(again.state, whole.state)


def test_members_that_improved_last_at_an_earlier_step_stand_there() -> None:
    pop = ft.population(program(), {"lr": [1e5, 1e6]})
    best = ft.fit(pop, SHARED, until="4 epochs", eval_data=SHARED, restore_best=True)
    first = best.best["step"][0]
    assert best.best["step"] == [first, first]
    assert first < 12
    assert best.state.counters.step == first
    assert ft.tree.equal(best.state, ft.fit(pop, SHARED, until=f"{first} steps").state)


def test_a_state_whose_members_have_all_stopped_is_refused() -> None:
    pop = ft.population(program(), RATES)
    best = ft.fit(pop, SHARED, until="4 epochs", eval_data=SHARED, restore_best=True)
    steps = ", ".join(map(str, stopping_steps(pop, best.state)))
    assert len(set(stopping_steps(pop, best.state))) > 1
    with pytest.raises(ConfigurationError, match=f"all 3 .* have stopped, at steps {steps}"):
        ft.fit(pop, SHARED, until="9 epochs", state=best.state)
    stopped = pop.stopped(pop.init(), [0, 1, 2])
    with pytest.raises(ConfigurationError, match=r"functrain.fit\(pop.programs\[i\]"):
        ft.fit(pop, SHARED, until="9 epochs", state=stopped)
    members = [pop.member(stopped, member) for member in range(3)]
    assert ft.fit(pop, SHARED, until="1 step", state=pop.stacked(members)).new_steps == 1


def test_the_history_of_a_member_ends_where_it_stopped_within_an_epoch() -> None:
    pop = ft.population(program(), {"lr": [0.01, 1e6]})
    listened: list[Any] = []

    class Means:
        def on_batch_end(self, event: Any) -> dict[str, float]:
            return {"own": 0.5}

        def on_epoch_end(self, event: Any) -> None:
            listened.append(event.metrics)

    options: Any = {"until": "2 epochs", "eval_data": SHARED, "eval_every": "2 steps"}
    stop = ft.EarlyStop(patience=99, upper=100.0)
    run = ft.fit(pop, SHARED, early_stop=stop, listeners=[Means()], **options)
    assert stopping_steps(pop, run.state) == [6, 2]
    rows = run.history.member(1).rows
    assert [row["step"] for row in rows] == [1, 2]
    assert not any(name.startswith("epoch/") for name in rows[-1])
    whole = ft.fit(pop, SHARED, **options).history
    assert run.history[2]["epoch/own"] == 0.5
    for mean in whole[2].keys() & run.history[2].keys():
        if mean.startswith("epoch/"):
            expected = [whole[2][mean][0], None]
            assert run.history[2][mean] == listened[0][mean.removeprefix("epoch/")] == expected


def test_the_means_of_a_cut_epoch_leave_out_members_that_have_stopped() -> None:
    pop = ft.population(program(), {"lr": [0.01, 1e6]})
    listened: list[Any] = []

    class Means:
        def on_epoch_end(self, event: Any) -> None:
            listened.append((event.complete, event.metrics["loss"]))

    options: Any = {"until": "5 steps", "eval_data": SHARED, "eval_every": "4 steps"}
    stop = ft.EarlyStop(patience=99, upper=100.0)
    ft.fit(pop, SHARED, early_stop=stop, listeners=[Means()], **options)
    assert [complete for complete, _ in listened] == [True, False]
    assert listened[-1][1][1] is None
    assert listened[-1][1][0] is not None


def test_another_rule_for_members_that_have_all_stopped_is_said_to_train_nothing(
    tmp_path: Any,
) -> None:
    pop = ft.population(program(), RATES)
    options: Any = {"eval_data": SHARED, "directory": tmp_path}
    ended = ft.fit(pop, SHARED, until="9 epochs", early_stop=ft.EarlyStop(upper=1e-9), **options)
    assert ended.reason == "early_stop"
    with pytest.warns(ResumeWarning, match="all members of the run .* have stopped, at steps 3, 3"):
        run = ft.fit(pop, SHARED, until="9 epochs", early_stop=Halving(), **options)
    assert run.new_steps == 0
