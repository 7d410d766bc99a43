"""``fit`` and ``evaluate`` with a population: by member what they are for one program."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from populations import alone, batch, program, require_close, trained

import functrain as ft
from functrain import schedules
from functrain.errors import (
    ConfigurationError,
    ListenerError,
    LogError,
    MissingMetricError,
    RecipeChangedWarning,
    RunChangedError,
)
from functrain.metrics.log_file import FILE_NAME

RATES = {"lr": [0.001, 0.01, 0.1, 1e6]}
DATA = [batch(number) for number in range(4)]


def population(**options: Any) -> Any:
    return ft.population(program(**options), RATES)


def test_fit_makes_the_steps_of_a_population() -> None:
    pop = population()
    run = ft.fit(pop, [batch(number) for number in range(8)], until="1 epoch")
    expected, rows = trained(pop, 8)
    assert ft.tree.equal(expected.params, run.state.params)
    assert run.history["loss"] == [row["loss"].tolist() for row in rows]
    assert np.array(run.history["loss"]).shape == (8, 4)
    one, own = alone(pop, 1, 8)
    require_close(one.params, pop.member(run.state, 1).params)
    assert run.history.member(1)["loss"] == pytest.approx([row["loss"].item() for row in own])
    assert run.history["epoch/loss"][0] == pytest.approx(
        np.mean(run.history["loss"], axis=0).tolist()
    )


@pytest.mark.parametrize("weights", ["params", "ema"])
def test_evaluation_gives_the_numbers_of_each_member_alone(weights: Any) -> None:
    pop = population(ema=0.5)
    state, _ = trained(pop, 3)
    data = [*DATA[:2], tuple(part[:5] for part in batch(2))]
    found = ft.evaluate(pop, state, data, weights=weights)
    for member in range(4):
        expected = ft.evaluate(
            pop.programs[member], pop.member(state, member), data, weights=weights
        )
        own = {name: values[member] for name, values in found.items()}
        assert own == pytest.approx(expected, rel=1e-9)


def test_evaluation_merges_metrics_and_weights_by_member() -> None:
    def weighted(model: Any, batch: Any) -> ft.Loss:
        x, y = batch
        logits = model(x)
        right = (logits.argmax(-1) == y).sum() + 1.0
        spread = ft.metrics.Quantiles.of(logits.flatten(), at=(0.5,))
        return ft.Loss(F.cross_entropy(logits, y), right, {"spread": spread, "half": 0.5})

    pop = population(evaluate=weighted)
    state, _ = trained(pop, 2)
    found = ft.evaluate(pop, state, DATA)
    for member in range(4):
        expected = ft.evaluate(pop.programs[member], pop.member(state, member), DATA)
        own = {name: values[member] for name, values in found.items()}
        assert own == pytest.approx(expected, rel=1e-9)


def test_own_batches_are_evaluated_by_member() -> None:
    pop = ft.population(program(), {"lr": [0.1, 0.2]}, batches="own")
    run = ft.fit(pop, [batch(0, 2), batch(1, 2)], until="2 epochs", eval_data=[batch(2, 2)])
    for member in range(2):
        data = [tuple(part[member] for part in batch(2, 2))]
        expected = ft.evaluate(pop.programs[member], pop.member(run.state, member), data)
        assert run.history["eval/loss"][-1][member] == pytest.approx(expected["loss"], rel=1e-9)


def test_each_member_stops_by_itself_and_keeps_its_state() -> None:
    pop = population()
    rule = ft.EarlyStop(patience=1)
    run = ft.fit(pop, DATA, until="6 epochs", eval_data=DATA, early_stop=rule)
    whole = ft.fit(pop, DATA, until="6 epochs", eval_data=DATA)
    steps = [pop.member(run.state, member).counters.step for member in range(4)]
    assert steps[3] < max(steps) == run.state.counters.step
    for member, step in enumerate(steps):
        expected = rule.init()
        for row in whole.history.member(member):
            if "eval/loss" in row and not expected["stop"]:
                found = {"eval/loss": row["eval/loss"]}
                expected, stopped = rule.observe(expected, found), row["step"]
        assert step == stopped
        until = ft.fit(pop, DATA, until=f"{step} steps")
        assert ft.tree.equal(
            pop.member(until.state, member).params, pop.member(run.state, member).params
        )
        assert len(run.history.member(member)["loss"]) == step
    assert math.isnan(run.history["loss"][-1][3])


def test_the_run_ends_where_all_members_have_stopped() -> None:
    pop = population()
    rule = ft.EarlyStop(lower=1e300)
    run = ft.fit(pop, DATA, until="9 epochs", eval_data=DATA, early_stop=rule)
    assert run.reason == "early_stop"
    assert run.detail.startswith("all 4 members have stopped; member 3: loss is")
    assert pop.running(run.state) == []


@pytest.mark.parametrize("stored", [True, False])
def test_the_best_state_of_each_member_is_restored(tmp_path: Path, stored: bool) -> None:
    pop = population(ema=0.5)
    where = {"directory": tmp_path / "run"} if stored else {}
    run = ft.fit(pop, DATA, until="6 epochs", eval_data=DATA, restore_best=True, **where)
    values = np.array(run.history["eval/loss"])
    assert run.best["value"] == values.min(0).tolist()
    assert run.best["step"] == [4 * (1 + at) for at in values.argmin(0).tolist()]
    assert run.best["member"] == values.min(0).argmin()
    assert ft.evaluate(pop, run.state, DATA)["loss"] == run.best["value"]
    steps = [pop.member(run.state, member).counters.step for member in range(4)]
    assert steps == run.best["step"]
    assert len(set(steps)) > 1


class Fails:
    """A listener that fails at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_end(self, event: Any) -> None:
        if event.state.counters.step == self.step:
            raise RuntimeError("here")


@pytest.mark.sweep
@pytest.mark.parametrize("step", [4, 7, 9])
def test_a_resumed_run_has_the_same_bytes(tmp_path: Path, step: int) -> None:
    def fit(name: str, listeners: Any = ()) -> Any:
        plateaus = [schedules.Plateau(rate, patience=0) for rate in RATES["lr"]]
        pop = ft.population(
            program(ema=0.9, accumulate=2), {"lr": plateaus, "clip_norm": [1.0] * 4}
        )
        return ft.fit(
            pop,
            ft.data.Batches(tuple(map(torch.cat, zip(*DATA, strict=True))), batch_size=6),
            until="4 epochs",
            eval_data=DATA,
            eval_every="3 steps",
            early_stop=[ft.EarlyStop(patience=1), ft.Overfit()],
            restore_best=True,
            directory=tmp_path / name,
            listeners=listeners,
        )

    expected = fit("whole")
    with pytest.raises(ListenerError):
        fit("cut", [Fails(step)])
    found = fit("cut")
    assert ft.tree.equal(expected.state, found.state)
    logs = [(tmp_path / name / FILE_NAME).read_bytes() for name in ("whole", "cut")]
    assert logs[0] == logs[1]
    assert b"null" in logs[0]
    assert ft.History.read(tmp_path / "cut").rows[-1].keys() == expected.history.rows[-1].keys()
    last = [ft.load(sorted((tmp_path / name).glob("step-*"))[-1]) for name in ("whole", "cut")]
    assert ft.tree.equal(last[0].train, last[1].train)
    assert ft.tree.equal(last[0].loop, last[1].loop)


def test_a_diverged_member_is_skipped_and_counted() -> None:
    pop = ft.population(program(), {"lr": [0.01, 0.02]}, batches="own")
    data = [batch(number, 2) for number in range(3)]
    data[1][0][0] = math.nan
    run = ft.fit(pop, data, until="3 steps")
    clean = ft.fit(pop, [batch(number, 2) for number in range(3)], until="3 steps")
    assert run.state.counters.skipped.tolist() == [1, 0]
    assert ft.tree.equal(pop.member(run.state, 1).params, pop.member(clean.state, 1).params)
    assert math.isnan(run.history.member(0)["loss"][1])


def test_a_run_of_other_members_is_not_resumed(tmp_path: Path) -> None:
    ft.fit(population(), DATA, until="2 steps", directory=tmp_path)
    for other, why in (
        (ft.population(program(), {"lr": [0.1, 0.2]}), "members is 4 in its checkpoint, got 2"),
        (ft.population(program(), {"lr": [0.1] * 4}), "lr is .* in its checkpoint, got"),
        (ft.population(program(), seeds=[0, 1, 2, 3]), "hyperparameters is lr .*, got none"),
        (program(), "is one of a population, got one program"),
    ):
        with pytest.raises(RunChangedError, match=why):
            ft.fit(other, DATA, until="4 steps", directory=tmp_path)


def test_restore_best_of_a_run_begun_without_it_begins_from_scratch(tmp_path: Path) -> None:
    ft.fit(population(), DATA, until="1 epoch", eval_data=DATA, directory=tmp_path)
    with pytest.warns(RecipeChangedWarning, match="the checkpoint has no best states of members"):
        run = ft.fit(
            population(),
            DATA,
            until="2 epochs",
            eval_data=DATA,
            directory=tmp_path,
            restore_best=True,
        )
    assert run.best["step"] == [8] * 4


def test_the_best_checkpoint_is_that_of_the_best_member(tmp_path: Path) -> None:
    pop = population()
    run = ft.fit(pop, DATA, until="5 epochs", eval_data=DATA, directory=tmp_path)
    values = np.array(run.history["eval/loss"])
    best = ft.Checkpoints(tmp_path).best()
    assert best == 4 * (1 + np.unravel_index(values.argmin(), values.shape)[0])


def test_compiled_members_have_the_same_history() -> None:
    pop = population()
    fast = ft.donated(ft.compiled(pop, backend="eager"))
    options: Any = {
        "until": "4 epochs",
        "eval_data": DATA,
        "early_stop": ft.EarlyStop(patience=1),
    }
    expected = ft.fit(pop, DATA, **options)
    found = ft.fit(fast, DATA, **options)
    steps = [
        [pop.member(run.state, n).counters.step for n in range(4)] for run in (expected, found)
    ]
    assert steps[0] == steps[1]
    require_close(expected.history[-1]["loss"], found.history[-1]["loss"])


def test_a_metric_that_no_evaluation_gives_is_refused() -> None:
    with pytest.raises(MissingMetricError, match="no evaluation of this run can give"):
        ft.fit(
            population(), DATA, until="1 epoch", eval_data=DATA, early_stop=ft.EarlyStop("val/loss")
        )


def test_the_state_of_one_program_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="expected the state of a population"):
        ft.fit(population(), DATA, until="1 step", state=program().init())


def test_history_of_a_member_that_is_not_there() -> None:
    run = ft.fit(population(), DATA, until="1 step")
    with pytest.raises(LogError, match="this is the history of 4 members"):
        run.history.member(4)
    with pytest.raises(LogError, match="of one program"):
        ft.fit(program(), DATA, until="1 step").history.member(0)


def test_history_finds_the_best_of_all_members() -> None:
    run = ft.fit(population(), DATA, until="2 epochs", eval_data=DATA)
    values = np.array(run.history["eval/loss"])
    step, value = run.history.best("eval/loss")
    assert value == values.min()
    assert step == 4 * (1 + values.min(1).argmin())
    assert "(member" in repr(run)
    frame = run.history.to_pandas()
    assert frame["loss/3"].tolist() == run.history.member(3)["loss"]
