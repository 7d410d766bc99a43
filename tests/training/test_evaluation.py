"""Several evaluation sets, the decisions by them, and the best state of a run."""

from __future__ import annotations

import functools
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft
from functrain import tree
from functrain.errors import (
    ConfigurationError,
    LossError,
    MissingMetricError,
    MissingMetricWarning,
)
from functrain.training import events
from functrain.training.early_stopping.rule import FirstOf

PER_EPOCH = 6


def columns(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(22, 3, generator=generator)
    return x, (x.sum(1) > 0).long()


def batches(seed: int = 0) -> ft.data.Batches:
    return ft.data.Batches(columns(seed), 4)


def loss(model: nn.Module, batch: Any) -> ft.Loss:
    x, y = batch
    logits = model(x)
    found = {"confusion": ft.metrics.ConfusionMatrix.of(logits, y, 2)}
    return ft.Loss(F.cross_entropy(logits, y), metrics=found)


def program(**options: Any) -> ft.Program:
    torch.manual_seed(0)
    optimizer = options.pop("optimizer", ft.optim.SGD(lr=0.1))
    return ft.program(nn.Linear(3, 2), options.pop("loss", loss), optimizer, **options)


class Evaluated:
    """Notes which evaluations there were."""

    def __init__(self) -> None:
        self.ended: list[events.EvalEnd] = []

    def on_eval_end(self, event: events.EvalEnd) -> None:
        self.ended.append(event)

    def parts(self) -> list[tuple[int, str, str]]:
        return [(e.state.counters.step, e.name, e.weights) for e in self.ended]


@pytest.mark.row(24)
class TestSets:
    """Several sets, each with its own interval, weights, function and part of the data."""

    def test_each_has_its_own_interval_and_the_last_update_is_evaluated_once(self) -> None:
        seen = Evaluated()
        sets = {
            "often": ft.Evaluation(batches(1), every="2 steps"),
            "seldom": ft.Evaluation(batches(2), every="0.5 epochs"),
            "usual": batches(3),
        }
        ft.fit(program(), batches(), until="7 steps", eval_data=sets, listeners=[seen])
        assert seen.parts() == [
            *[(2, "often", "params"), (3, "seldom", "params"), (4, "often", "params")],
            *[(6, name, "params") for name in sets],
            *[(7, name, "params") for name in sets],
        ]

    @pytest.mark.parametrize(
        ("weights", "expected"),
        [(None, ["params", "ema"]), ("ema", ["ema"]), (("params",), ["params"])],
    )
    def test_weights_can_be_chosen(self, weights: Any, expected: list[str]) -> None:
        seen = Evaluated()
        only = ft.Evaluation(batches(1), weights=weights)
        ft.fit(program(ema=0.9), batches(), until="3 steps", eval_data=only, listeners=[seen])
        assert [event.weights for event in seen.ended] == expected

    def test_the_first_batches_and_a_function_of_its_own(self) -> None:
        def counted(model: nn.Module, batch: Any) -> ft.Loss:
            return ft.Loss(model(batch[0]).mean(), metrics={"size": float(len(batch[0]))})

        first = ft.Evaluation(ft.data.Batches(columns(1), 4, shuffle=False), batches=2)
        whole = ft.Evaluation([columns(1)], function=counted)
        run = ft.fit(
            program(), batches(), until="3 steps", eval_data={"first": first, "whole": whole}
        )
        x, y = columns(1)
        expected = ft.evaluate(program(), run.state, [(x[:8], y[:8])])["loss"]
        assert run.history["first/loss"][-1] == pytest.approx(expected, rel=1e-6)
        assert run.history["whole/size"] == [22.0]
        assert "whole/confusion/f1" not in run.history.names()

    def test_listeners_are_given_the_counts_behind_the_numbers(self) -> None:
        seen = Evaluated()
        run = ft.fit(program(), batches(), until="3 steps", eval_data=batches(1), listeners=[seen])
        counts = seen.ended[-1].values["confusion"].counts
        assert counts.sum() == 22
        share = (counts.diagonal().sum() / 22).item()
        assert run.history["eval/confusion/accuracy"] == [pytest.approx(share)]

    @pytest.mark.parametrize(
        "options", [{"weights": "other"}, {"weights": ()}, {"batches": 0}, {"every": "never"}]
    )
    def test_options_that_make_no_sense(self, options: Any) -> None:
        with pytest.raises((ConfigurationError, ValueError)):
            ft.Evaluation(batches(), **options)


class TestDecisions:
    """Decisions wait for the monitored set."""

    def test_other_sets_do_not_count_against_the_monitored_one(self) -> None:
        sets = {
            "watched": ft.Evaluation(batches(1), every="1 epoch"),
            "other": ft.Evaluation(batches(2), every="1 step"),
        }
        rule = ft.EarlyStop("watched/loss", patience=2, min_delta=100.0)
        schedule = ft.schedules.Plateau(0.1, patience=0, threshold=100.0)
        made = program(optimizer=ft.optim.SGD(lr=schedule))
        with warnings.catch_warnings():
            warnings.simplefilter("error", MissingMetricWarning)
            run = ft.fit(made, batches(), until="9 epochs", eval_data=sets, early_stop=rule)
        assert (run.reason, run.state.counters.step) == ("early_stop", 3 * PER_EPOCH)
        assert run.best["step"] in (PER_EPOCH, 2 * PER_EPOCH, 3 * PER_EPOCH)

    @pytest.mark.row(25)
    def test_a_metric_that_no_set_gives_is_an_error(self) -> None:
        sets = {"one": batches(1), "two": ft.Evaluation(batches(2), every="1 step")}
        with pytest.raises(MissingMetricError, match=r"'typo'.* called one/\.\.\. or two/\.\.\."):
            ft.fit(
                program(),
                batches(),
                until="1 epoch",
                eval_data=sets,
                early_stop=ft.EarlyStop("typo"),
            )

    @pytest.mark.row(25)
    def test_the_first_of_several_rules_ends_the_run_also_when_resumed(
        self, tmp_path: Path
    ) -> None:
        rules = [ft.EarlyStop(patience=50), ft.EarlyStop("loss", patience=3, min_delta=10.0)]

        def go(directory: Path, until: str) -> ft.Run:
            return ft.fit(
                program(),
                batches(),
                until=until,
                eval_data=batches(1),
                eval_every="2 steps",
                early_stop=rules,
                directory=directory,
            )

        whole = go(tmp_path / "whole", "9 epochs")
        assert (whole.reason, whole.state.counters.step) == ("early_stop", 8)
        go(tmp_path / "parts", "4 steps")
        resumed = go(tmp_path / "parts", "9 epochs")
        assert (resumed.detail, resumed.state.counters.step) == (whole.detail, 8)

    @pytest.mark.row(29)
    def test_a_limit_and_a_rule_at_one_step_are_the_same_ending_each_time(
        self, tmp_path: Path
    ) -> None:
        def go() -> str:
            return ft.fit(
                program(),
                batches(),
                until="3 steps",
                eval_data=batches(1),
                early_stop=ft.EarlyStop(upper=0.0),
                directory=tmp_path,
            ).reason

        assert (go(), go()) == ("max_steps", "max_steps")

    def test_a_rule_that_is_added_begins_from_scratch(self, tmp_path: Path) -> None:
        def go(until: str, rule: Any) -> ft.Run:
            given = {"eval_data": batches(1), "eval_every": "1 step", "directory": tmp_path}
            return ft.fit(program(), batches(), until=until, early_stop=rule, **given)

        go("2 steps", ft.EarlyStop(patience=9))
        never = ft.EarlyStop(min_delta=10.0, patience=2)
        run = go("9 epochs", [ft.EarlyStop(patience=9), never])
        assert (run.reason, run.state.counters.step) == ("early_stop", 5)


class TestOverfit:
    """Overfit looks at an evaluation and at training together."""

    def observe(self, rule: ft.Overfit, pairs: list[tuple[float | None, float]]) -> Any:
        state = rule.init()
        for trained, evaluated in pairs:
            found = {"eval/loss": evaluated}
            found |= {} if trained is None else {"epoch/loss": trained}
            state = rule.observe(state, found)
        return state

    def test_counts_only_while_training_gets_better(self) -> None:
        rule = ft.Overfit(patience=2)
        rising = [(1.0, 1.0), (0.9, 1.1), (0.8, 1.2)]
        assert self.observe(rule, rising)["stop"]
        assert not self.observe(rule, [(1.0, 1.0), (0.9, 1.1), (1.0, 1.2)])["stop"]
        assert not self.observe(rule, [(1.0, 1.0), (0.9, 1.1), (0.8, 1.1), (0.7, 1.2)])["stop"]
        assert not self.observe(rule, [(1.0, 1.0), (0.9, math.nan), (0.8, math.nan)])["stop"]

    def test_evaluations_within_an_epoch_are_passed_over(self) -> None:
        rule = ft.Overfit(patience=2)
        pairs: Any = [(1.0, 1.0), (None, 9.0), (0.9, 1.1), (None, 0.0), (0.8, 1.2)]
        assert self.observe(rule, pairs)["misses"] == 2

    def test_ends_a_run(self) -> None:
        def memorised(model: nn.Module, batch: Any) -> Tensor:
            return (model(batch[0]) * batch[1][:, None]).mean()

        x = torch.ones(4, 3)
        run = ft.fit(
            program(loss=memorised),
            [(x, torch.ones(4))],
            until="100 epochs",
            eval_data=[(x, -torch.ones(4))],
            early_stop=ft.Overfit(patience=4),
        )
        assert (run.reason, run.state.counters.epoch) == ("early_stop", 5)
        assert "got worse while epoch/loss got better" in run.detail


def test_a_run_shows_the_metrics_of_sets_of_any_name() -> None:
    run = ft.fit(program(), batches(), until="2 steps", eval_data={"valid": batches(1)})
    assert f"step=2, loss={run.history['loss'][-1]:.4g}, valid/loss=" in repr(run)
    assert "grad_norm" not in repr(run)
    with pytest.raises(AttributeError, match=r"run\.history\.plot\(\)"):
        run.plot()


@pytest.mark.row(26)
class TestRestoreBest:
    """The state with the best evaluation, bit for bit."""

    def go(self, until: str, directory: Path | None = None, **options: Any) -> ft.Run:
        # A rate at which the loss goes up and down.
        made = program(optimizer=ft.optim.SGD(lr=60.0))
        given = {"eval_data": batches(1), "eval_every": "1 step", "directory": directory}
        return ft.fit(made, batches(), until=until, **{**given, **options})

    @pytest.mark.parametrize("kept", [False, True])
    def test_is_the_state_of_that_step(self, kept: bool, tmp_path: Path) -> None:
        run = self.go("12 steps", tmp_path if kept else None, restore_best=True)
        values = run.history["eval/loss"]
        best = 1 + values.index(min(values))
        assert best < 12
        assert run.state.counters.step == best == run.best["step"]
        expected = self.go(f"{best} steps").state
        assert tree.diff(run.state.params, expected.params) == []
        assert tree.diff(run.state.optimizer, expected.optimizer) == []

    def test_is_shown_with_its_own_metrics(self) -> None:
        run = self.go("12 steps", restore_best=True)
        step = run.best["step"]
        assert f"step={step} of 12, loss={run.history['loss'][step - 1]:.4g}, " in repr(run)
        assert f"eval/loss={run.history['eval/loss'][step - 1]:.4g}" in repr(run)

    def test_what_is_saved_and_resumed_is_the_last_state(self, tmp_path: Path) -> None:
        self.go("8 steps", tmp_path / "parts", restore_best=True)
        assert ft.Checkpoints(tmp_path / "parts").steps()[-1] == 8
        parts = self.go("12 steps", tmp_path / "parts", restore_best=True)
        whole = self.go("12 steps", tmp_path / "whole", restore_best=True)
        assert tree.diff(parts.state, whole.state) == []
        assert parts.history.rows == whole.history.rows

    def test_without_a_best_the_last_is_returned_with_a_warning(self) -> None:
        def nan(model: nn.Module, batch: Any) -> Tensor:
            return torch.tensor(math.nan)

        sets = {"eval": ft.Evaluation(batches(1), function=nan)}
        with pytest.warns(MissingMetricWarning, match="restore_best: no evaluation gave"):
            run = self.go("3 steps", restore_best=True, eval_data=sets)
        assert run.state.counters.step == 3

    def test_a_store_that_keeps_no_best_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="keep_best of at least 1"):
            self.go("3 steps", ft.Checkpoints(tmp_path, keep_best=0), restore_best=True)


def test_the_rules_say_what_they_watch() -> None:
    assert (FirstOf([ft.EarlyStop("accuracy", mode="max")]).mode, FirstOf([]).monitor) == (
        "max",
        "loss",
    )


def test_an_evaluation_of_no_batches_is_refused() -> None:
    made = program()
    with pytest.raises(ConfigurationError, match=r"batches: expected .*got 0"):
        ft.evaluate(made, made.init(), batches(), batches=0)


def of_positives(model: nn.Module, batch: Any, without: ft.metrics.Mean | None = None) -> ft.Loss:
    """Report a metric of one class where it occurs; ``without`` where it does not."""
    x, y = batch
    found: dict[str, Any] = {"mean": model(x).mean()}
    if (y == 1).any():
        found["of positives"] = ft.metrics.Mean.of(x[y == 1].sum(1))
    elif without is not None:
        found["of positives"] = without
    return ft.Loss(model(x).square().mean(), metrics=found)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([1, 1, 0, 0], "earlier batches have the metric 'of positives', and batch 1 .* does not"),
        ([0, 0, 1, 1], "batch 1 of the evaluation data has the metric 'of positives', and earlier"),
    ],
    ids=["first", "last"],
)
def test_a_metric_that_some_batches_lack_is_refused(labels: list[int], said: str) -> None:
    x, y = columns()[0][:4], torch.tensor(labels)
    made, data = program(loss=of_positives), [(x[:2], y[:2]), (x[2:], y[2:])]
    with pytest.raises(LossError, match=f"{said}.*Mean.empty"):
        ft.evaluate(made, made.init(), data)
    remedied = program(loss=functools.partial(of_positives, without=ft.metrics.Mean.empty()))
    found = ft.evaluate(remedied, remedied.init(), data)
    assert found["of positives"] == pytest.approx(x[y == 1].sum(1).mean().item())


@pytest.mark.parametrize(
    ("name", "sets", "refused"),
    [
        ("eval/loss", batches(1), True),
        ("held out/bias", {"held out": batches(1)}, True),
        ("epoch/loss", None, True),
        ("eval/loss", {"held out": batches(1)}, False),
        ("train/loss", batches(1), False),
    ],
)
def test_a_steps_metric_has_no_name_of_an_evaluation(name: str, sets: Any, refused: bool) -> None:
    def named(model: nn.Module, batch: Any) -> ft.Loss:
        return ft.Loss(F.cross_entropy(model(batch[0]), batch[1]), metrics={name: torch.ones(())})

    program = ft.program(nn.Linear(3, 2), named, ft.optim.SGD(lr=0.1))
    run = functools.partial(ft.fit, program, batches(), until="1 epoch", eval_data=sets)
    if refused:
        with pytest.raises(LossError, match=f"names .'{name}'"):
            run()
    else:
        assert run().history[name] == [1.0] * PER_EPOCH


@pytest.mark.parametrize("names", [["epoch"], ["valid", "valid/ema"]])
def test_a_set_has_no_name_of_other_metrics(names: list[str]) -> None:
    program = ft.program(nn.Linear(3, 2), loss, ft.optim.SGD(lr=0.1), ema=0.9)
    with pytest.raises(ConfigurationError, match=f"the names .'{names[-1]}'"):
        ft.fit(program, batches(), until="1 epoch", eval_data={name: batches(1) for name in names})
