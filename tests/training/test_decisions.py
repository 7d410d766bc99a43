"""Decisions after one evaluation depend on the decisions before it alone."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

import functrain as ft
from functrain.checkpoint.run_state import LoopState
from functrain.errors import MissingMetricError, MissingMetricWarning
from functrain.training.decisions import Decisions
from functrain.training.durations import Steps
from functrain.training.early_stopping.rule import FirstOf
from functrain.training.monitored import Monitored
from functrain.training.plan import Evaluations

NOTHING = Evaluations({}, Steps(1))
PATIENT = ft.EarlyStop("accuracy", patience=2, mode="max")


def program(lr: Any = 0.1) -> ft.Program:
    def loss(model: torch.nn.Module, batch: Any) -> Any:
        return model(batch).mean()

    return ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=lr))


def trained(made: ft.Program, step: int = 7) -> ft.TrainState:
    state = made.init()
    return attrs.evolve(state, counters=attrs.evolve(state.counters, step=step))


def decided(
    rules: Decisions, found: dict[str, float], loop: LoopState | None = None, complete: bool = True
) -> tuple[LoopState, ft.TrainState]:
    loop = LoopState.initial(rules.initial()) if loop is None else loop
    return rules.after(loop, trained(rules.program), found, complete)


class TestWhatIsWatched:
    def test_the_metric_of_the_store_comes_before_that_of_the_rule(self, tmp_path: Path) -> None:
        store = ft.Checkpoints(tmp_path, monitor="eval/f1", mode="max")
        watched = Decisions.of(program(), ft.EarlyStop("error"), store)
        assert (watched.monitor, watched.mode) == ("eval/f1", "max")

    def test_without_a_store_that_of_the_rule_and_then_the_loss(self) -> None:
        watched = Decisions.of(program(), PATIENT, None)
        assert (watched.monitor, watched.mode) == ("accuracy", "max")
        watched = Decisions.of(program(), None, None)
        assert (watched.monitor, watched.mode) == ("loss", None)

    def test_a_run_decides_the_same_whether_it_is_written_or_not(self, tmp_path: Path) -> None:
        def loss(model: torch.nn.Module, x: torch.Tensor) -> ft.Loss:
            value = model(x).square().mean()
            return ft.Loss(value, metrics={"accuracy": -(value - 0.5).abs()})

        torch.manual_seed(0)
        plateau = ft.optim.SGD(lr=ft.schedules.Plateau(0.1, patience=0, mode="max"))
        made = ft.program(torch.nn.Linear(2, 1), loss, plateau)
        data = [torch.ones(4, 2)] * 2
        options = {"until": "8 epochs", "eval_data": data, "early_stop": PATIENT}
        alone, written = (ft.fit(made, data, directory=d, **options) for d in (None, tmp_path))
        assert written.best == alone.best
        assert written.best["value"] <= 0  # an accuracy of this loss is; its loss is not
        assert written.history.rows == alone.history.rows
        assert ft.tree.diff(written.state, alone.state) == []

    def test_a_rule_that_does_not_say_what_it_watches(self) -> None:
        class Own:
            def init(self) -> dict[str, Any]:
                return {"stop": None}

            def observe(self, state: dict[str, Any], metrics: Any) -> dict[str, Any]:
                return state

        watched = Decisions.of(program(), Own(), None)
        assert (watched.monitor, watched.mode) == ("loss", None)

    @pytest.mark.parametrize(
        ("options", "missed"),
        [
            ({"monitor": "eval/f1"}, True),
            ({"monitor": "a metric before 'loss' in the alphabet"}, True),
            ({"monitor": "eval/f1", "keep_best": 1}, True),
            ({"monitor": "z"}, True),
            ({"monitor": "eval/f1", "keep_best": 0}, False),
            ({}, False),
        ],
    )
    def test_only_a_best_by_a_metric_that_was_named_is_missed(
        self, options: dict[str, Any], missed: bool, tmp_path: Path
    ) -> None:
        watched = Decisions.of(program(), None, ft.Checkpoints(tmp_path, **options))
        expected = [Monitored("checkpoints", options.get("monitor"))] if missed else []
        assert watched.monitored() == expected


class TestWhatWaitsInVain:
    def test_all_of_it_is_named_at_once(self, tmp_path: Path) -> None:
        store = ft.Checkpoints(tmp_path, monitor="eval/f1")
        watched = Decisions.of(program(ft.schedules.Plateau(0.1)), PATIENT, store, True)
        waiting = (
            "early_stop, the best checkpoint by 'eval/f1', the learning rate schedule, restore_best"
        )
        with pytest.raises(MissingMetricError, match=rf"have no effect: {waiting}\. Give"):
            watched.check(NOTHING)

    def test_one_alone_is_named_alone(self) -> None:
        with pytest.raises(MissingMetricError, match=r"have no effect: early_stop\. Give"):
            Decisions.of(program(), PATIENT, None).check(NOTHING)
        watched = Decisions.of(program(ft.schedules.Plateau(0.1)), None, None)
        with pytest.raises(
            MissingMetricError, match=r"have no effect: the learning rate schedule\. G"
        ):
            watched.check(NOTHING)

    def test_a_run_in_which_nothing_waits_is_quiet(self) -> None:
        Decisions.of(program(), None, None).check(NOTHING)


class TestResumed:
    @pytest.mark.parametrize("saved", [{}, {"stop": None, "0": {}}, {"stop": None}])
    def test_a_rule_of_another_shape_is_reset_and_nothing_else_is(
        self, saved: dict[str, Any]
    ) -> None:
        loop = attrs.evolve(LoopState.initial(saved), best={"value": 0.5, "step": 3}, log_bytes=9)
        for rule in (PATIENT, FirstOf([PATIENT, PATIENT])):
            decisions = Decisions.of(program(), rule, None)
            taken = decisions.resumed(loop, decisions.record())
            assert taken.early_stop == rule.init()
            assert (taken.best, taken.log_bytes) == ({"value": 0.5, "step": 3}, 9)

    def test_a_rule_that_was_dropped_is_reset_when_it_is_given_again(self) -> None:
        more = {**PATIENT.init(), "other": 1}
        taken = Decisions.of(program(), PATIENT, None).resumed(LoopState.initial(more))
        assert taken.early_stop == PATIENT.init()

    def test_the_same_rule_goes_on_and_no_rule_leaves_nothing(self) -> None:
        loop = LoopState.initial({"best": 0.5, "misses": 1, "stop": None})
        assert Decisions.of(program(), PATIENT, None).resumed(loop) is loop
        assert Decisions.of(program(), None, None).resumed(loop).early_stop == {}


class TestAfter:
    def test_an_improvement_is_noted_with_its_step(self) -> None:
        watched = Decisions.of(program(), PATIENT, None)
        loop, _ = decided(watched, {"eval/accuracy": 0.5})
        assert loop.best == {"value": 0.5, "step": 7}
        assert loop.early_stop == {"best": 0.5, "misses": 0, "stop": None}
        better, _ = decided(watched, {"eval/accuracy": 0.75}, loop)
        assert better.best["value"] == 0.75

    @pytest.mark.parametrize("value", [0.5, 0.25, math.nan])
    def test_the_best_is_the_same_object_where_nothing_improved(self, value: float) -> None:
        watched = Decisions.of(program(), PATIENT, None)
        before, _ = decided(watched, {"eval/accuracy": 0.5})
        loop, _ = decided(watched, {"eval/accuracy": value}, before)
        assert loop.best is before.best
        assert loop.early_stop["misses"] == 1
        assert before.early_stop["misses"] == 0

    def test_a_metric_that_is_waited_for_changes_nothing_and_is_not_missed(
        self, tmp_path: Path
    ) -> None:
        store = ft.Checkpoints(tmp_path, monitor="accuracy", mode="max")
        watched = Decisions.of(program(ft.schedules.Plateau(0.1, patience=0)), PATIENT, store)
        before, _ = decided(watched, {"eval/accuracy": 0.5})
        loop, train = decided(watched, {"other/loss": 1.0}, before, complete=False)
        assert (loop.best, loop.early_stop) == (before.best, before.early_stop)
        assert train.scheduler == watched.program.init().scheduler

    def test_a_metric_of_an_incomplete_evaluation_counts(self) -> None:
        watched = Decisions.of(program(ft.schedules.Plateau(0.1)), PATIENT, None)
        loop, train = decided(watched, {"eval/accuracy": 0.5}, complete=False)
        assert (loop.best["value"], train.scheduler["best"]) == (0.5, 0.5)

    def test_warnings_of_another_kind_are_heard_while_a_metric_is_waited_for(self) -> None:
        class Outspoken(ft.EarlyStop):
            def observe(self, state: Any, metrics: Any) -> Any:
                warnings.warn("of its own", UserWarning, stacklevel=2)
                return state

        with pytest.warns(UserWarning, match="of its own"):
            decided(Decisions.of(program(), Outspoken(), None), {}, complete=False)

    def test_a_schedule_and_a_rule_see_that_their_metric_is_missing(self) -> None:
        made = program(ft.schedules.Plateau(0.1))
        with pytest.warns(MissingMetricWarning, match="Plateau was shown no metric"):
            decided(Decisions.of(made, None, None), {"eval/other": 1.0})
        with pytest.warns(MissingMetricWarning, match="waits for 'accuracy'"):
            decided(Decisions.of(program(), PATIENT, None), {"eval/other": 1.0})
