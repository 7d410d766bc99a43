"""fit and iterate: units, order of events, decisions, endings, logs."""

from __future__ import annotations

import itertools
import math
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_runs import PER_EPOCH, SAMPLES, SIZE, Recorder, batches, columns, loss, program, rows
from torch import nn

import functrain as ft
from functrain import errors, tree
from functrain.training import events


@pytest.mark.row(22)
class TestUnits:
    @pytest.mark.parametrize(
        ("until", "steps", "reason"),
        [
            ("7 steps", 7, "max_steps"),
            (ft.Epochs(2), 2 * PER_EPOCH, "max_epochs"),
            ("0.5 epochs", 3, "max_epochs"),
            ("9 samples", 3, "max_samples"),
            (["100 steps", ft.Epochs(1)], PER_EPOCH, "max_epochs"),
            (["4 steps", "10 epochs", "60 minutes"], 4, "max_steps"),
        ],
    )
    def test_a_run_ends_exactly_there(self, until: Any, steps: int, reason: str) -> None:
        run = ft.fit(program(), batches(), until=until)
        assert (run.state.counters.step, run.reason) == (steps, reason)
        assert run.history["step"] == list(range(1, steps + 1))

    def test_minutes(self) -> None:
        run = ft.fit(program(), batches(), until="0.2 seconds")
        assert run.reason == "max_time"
        assert 0.2 <= run.seconds < 5

    @pytest.mark.parametrize("what", ["save_every", "eval_every", "every"])
    def test_minutes_between_checkpoints_and_evaluations(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        passed, clock = [0.0], time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: clock() + passed[0])

        class Ticking:
            def on_batch_begin(self, event: events.BatchBegin) -> None:
                passed[0] += 25 * 60

        sets = {"eval_every": batches(), "every": ft.Evaluation(batches(), every="1 hour")}
        options = {} if what == "every" else {what: "1 hour"}
        run = ft.fit(
            program(),
            batches(),
            until="9 steps",
            eval_data=sets.get(what),
            directory=ft.Checkpoints(tmp_path, keep_last=9),
            listeners=[Ticking()],
            **{"save_every": "9 steps", "eval_every": "9 steps", **options},
        )
        if what == "save_every":
            assert ft.Checkpoints(tmp_path).steps() == [3, 5, 8, 9]
        else:
            evaluated = [row["step"] for row in run.history.rows if "eval/loss" in row]
            assert evaluated == [3, 5, 8, 9]

    @pytest.mark.parametrize("until", [100, "soon", [], "-3 steps"])
    def test_what_is_no_duration(self, until: Any) -> None:
        with pytest.raises(errors.FunctrainError):
            ft.fit(program(), batches(), until=until)


@pytest.mark.row(21)
def test_every_sample_once_an_epoch_in_another_order_each() -> None:
    seen: list[list[float]] = []

    class Watch:
        def on_batch_begin(self, event: events.BatchBegin) -> None:
            seen.append(event.batch[0][:, 0].tolist())

    ft.fit(program(), batches(), until="2 epochs", listeners=[Watch()])
    first, second = (list(itertools.chain(*seen[i : i + PER_EPOCH])) for i in (0, PER_EPOCH))
    expected = sorted(columns()[0][:, 0].tolist())
    assert sorted(first) == sorted(second) == expected
    assert first != second


class TestEvaluation:
    @pytest.mark.row(23)
    @pytest.mark.parametrize(
        ("every", "at"),
        [
            ("4 steps", [4, 8, 12, 15]),
            ("1 epoch", [6, 12, 15]),
            ("0.5 epochs", [3, 6, 9, 12, 15]),
            (None, [6, 12, 15]),
        ],
    )
    def test_is_made_at_multiples_and_at_the_end(self, every: Any, at: list[int]) -> None:
        run = ft.fit(program(), batches(), until="15 steps", eval_data=batches(7), eval_every=every)
        assert run.history.column("eval/loss")[0] == at

    @pytest.mark.row(24)
    def test_means_are_over_samples_not_batches(self) -> None:
        trained = ft.fit(program(ema=0.9), batches(), until="3 steps").state
        for weights in ("params", "ema"):
            made = program(ema=0.9)
            whole = made.eval_step(trained, columns(9), weights=weights)
            uneven = ft.evaluate(made, trained, batches(9), weights=weights)
            assert uneven["loss"] == pytest.approx(whole["loss"].item(), rel=1e-6)
            assert uneven["accuracy"] == pytest.approx(whole["accuracy"].item(), rel=1e-6)

    @pytest.mark.row(24)
    def test_several_sets_raw_and_averaged(self) -> None:
        run = ft.fit(
            program(ema=0.9),
            batches(),
            until="6 steps",
            eval_data={"near": batches(5), "far": batches(9)},
        )
        names = {f"{s}/{m}" for s in ("near", "far", "near/ema", "far/ema") for m in ("loss",)}
        assert names <= set(run.history.names())

    @pytest.mark.row(24)
    def test_evaluating_does_not_change_training(self) -> None:
        torch.manual_seed(5)
        with_it = ft.fit(
            program(), batches(), until="9 steps", eval_data=batches(7), eval_every="1 steps"
        )
        without = ft.fit(program(), batches(), until="9 steps")
        assert tree.diff(with_it.state, without.state) == []

    def test_an_empty_evaluation_set_gives_no_metrics(self) -> None:
        empty = [(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))]
        with pytest.warns(errors.EmptyBatchWarning):
            run = ft.fit(program(), batches(), until="1 epoch", eval_data=empty)
        assert "eval/loss" not in run.history.names()


@pytest.mark.row(27)
class TestEvents:
    def test_none_listens(self) -> None:
        assert ft.fit(program(), batches(), until="2 steps", listeners=None).reason == "max_steps"

    def test_order(self, tmp_path: Path) -> None:
        recorder = Recorder()
        ft.fit(
            program(ema=0.9),
            batches(10),
            until="5 steps",
            eval_data=batches(5),
            directory=tmp_path,
            listeners=[recorder],
        )
        letters = {
            "TrainBegin": "T",
            "EpochBegin": "E",
            "BatchBegin": "b",
            "BatchEnd": "B",
            "EpochEnd": "e",
            "EvalBegin": "v",
            "EvalEnd": "V",
            "CheckpointSaved": "C",
            "EarlyStopped": "S",
            "TrainEnd": "t",
        }
        word = "".join(letters[name] for name in recorder.names())
        assert re.fullmatch("T(E(bB)+e(vV)*C)*E(bB)+(vV)*Cet", word)
        assert word == "TEbBbBbBevVvVCEbBbBvVvVCet"
        assert [e.complete for e in recorder.events if isinstance(e, events.EpochEnd)] == [
            True,
            False,
        ]

    def test_epoch_means_are_weighted_by_samples(self) -> None:
        recorder = Recorder()
        run = ft.fit(program(), batches(), until="1 epoch", listeners=[recorder])
        sizes = [4, 4, 4, 4, 4, 2]
        expected = (
            sum(value * n for value, n in zip(run.history["loss"], sizes, strict=True)) / SAMPLES
        )
        (end,) = (e for e in recorder.events if isinstance(e, events.EpochEnd))
        assert end.metrics["loss"] == pytest.approx(expected, rel=1e-12)
        assert run.history["epoch/loss"] == [end.metrics["loss"]]

    def test_a_listener_adds_to_the_row_of_its_step(self, tmp_path: Path) -> None:
        seen: list[dict[str, Any]] = []

        class Adding:
            def on_batch_end(self, event: Any) -> dict[str, Any]:
                return {"doubled": 2 * event.metrics["loss"], "number": event.state.counters.step}

        class Seeing:
            def on_batch_end(self, event: Any) -> None:
                seen.append(dict(event.metrics))

        listeners = [Seeing(), Adding(), Seeing()]
        run = ft.fit(program(), batches(), until="3 steps", directory=tmp_path, listeners=listeners)
        assert run.history["number"] == [1.0, 2.0, 3.0]
        assert run.history["doubled"] == [2 * loss for loss in run.history["loss"]]
        assert [row["number"] for row in rows(tmp_path)] == [1.0, 2.0, 3.0]
        assert ["number" in metrics for metrics in seen] == [False, True] * 3

    def test_a_listener_may_not_change_a_metric_of_the_step(self) -> None:
        class Rewriting:
            def on_batch_end(self, event: Any) -> dict[str, float]:
                return {"loss": 0.0}

        with pytest.raises(errors.ListenerError, match=r"Rewriting.on_batch_end .*: \['loss'\]"):
            ft.fit(program(), batches(), until="3 steps", listeners=[Rewriting()])

    @pytest.mark.row(28)
    def test_a_listener_can_stop_the_run(self) -> None:
        class Enough:
            def on_batch_end(self, event: events.BatchEnd) -> ft.Stop | None:
                return ft.Stop("enough") if event.state.counters.step == 4 else None

        run = ft.fit(program(), batches(), until="100 steps", listeners=[Enough()])
        assert (run.reason, run.detail, run.state.counters.step) == ("listener", "enough", 4)

    @pytest.mark.row(28)
    @pytest.mark.row(38)
    def test_an_error_in_one_is_named_and_leaves_a_resumable_run(self, tmp_path: Path) -> None:
        class Broken:
            armed = True

            def on_eval_end(self, event: events.EvalEnd) -> None:
                if self.armed and event.state.counters.step == 6:
                    raise ZeroDivisionError("mine")

        listener = Broken()
        options: Any = {"until": "9 steps", "eval_data": batches(5), "eval_every": "3 steps"}
        with pytest.raises(errors.ListenerError, match=r"Broken\.on_eval_end .* step 6: Zero") as e:
            ft.fit(program(), batches(), directory=tmp_path, listeners=[listener], **options)
        assert isinstance(e.value.__cause__, ZeroDivisionError)
        listener.armed = False
        run = ft.fit(program(), batches(), directory=tmp_path, listeners=[listener], **options)
        straight = ft.fit(program(), batches(), directory=tmp_path / "other", **options)
        assert tree.diff(run.state, straight.state) == []
        assert rows(tmp_path) == rows(tmp_path / "other")

    @pytest.mark.row(28)
    @pytest.mark.parametrize("fails", [False, True], ids=["and returns", "and fails"])
    def test_one_that_writes_to_the_state_is_named_and_spoils_no_checkpoint(
        self, fails: bool, tmp_path: Path
    ) -> None:
        class Writing:
            armed = True

            def on_batch_end(self, event: events.BatchEnd) -> None:
                if self.armed and event.state.counters.step == 5:
                    event.state.params["0.weight"].mul_(0)
                    assert not fails

        listener = Writing()
        options: Any = {"until": "9 steps", "save_every": "3 steps"}
        said = "AssertionError" if fails else r"on_batch_end of Writing wrote .* of step 5"
        with pytest.raises(errors.ListenerError, match=said) as caught:
            ft.fit(program(), batches(), directory=tmp_path, listeners=[listener], **options)
        assert any("is not saved" in note for note in caught.value.__notes__)
        listener.armed = False
        run = ft.fit(program(), batches(), directory=tmp_path, listeners=[listener], **options)
        straight = ft.fit(program(), batches(), directory=tmp_path / "other", **options)
        assert tree.diff(run.state, straight.state) == []
        assert rows(tmp_path) == rows(tmp_path / "other")

    @pytest.mark.row(38)
    @pytest.mark.parametrize("step", [PER_EPOCH, PER_EPOCH + 2, PER_EPOCH + 3])
    def test_an_error_at_an_evaluated_step_costs_nothing_of_its_row(
        self, tmp_path: Path, step: int
    ) -> None:
        class FailOnce:
            def __init__(self, at: int) -> None:
                self.at = at

            def on_batch_end(self, event: Any) -> None:
                if event.state.counters.step == self.at:
                    raise KeyError("mine")

        def go(name: str, at: int = -1) -> None:
            options: Any = {"eval_data": batches(), "eval_every": "2 steps"}
            listeners = [FailOnce(at)]
            ft.fit(
                program(),
                batches(),
                until="2 epochs",
                directory=tmp_path / name,
                listeners=listeners,
                **options,
            )

        go("whole")
        with pytest.raises(errors.ListenerError):
            go("parts", step)
        go("parts")
        assert rows(tmp_path / "parts") == rows(tmp_path / "whole")

    def test_what_a_listener_added_stays_where_a_later_one_fails(self, tmp_path: Path) -> None:
        class Adding:
            def on_batch_end(self, event: Any) -> dict[str, float]:
                return {"added": 1.0}

        class FailOnce:
            def on_batch_end(self, event: Any) -> None:
                if event.state.counters.step == 2:
                    raise KeyError("mine")

        with pytest.raises(errors.ListenerError):
            ft.fit(
                program(),
                batches(),
                until="4 steps",
                directory=tmp_path,
                listeners=[Adding(), FailOnce()],
            )
        assert [row["added"] for row in rows(tmp_path)] == [1.0, 1.0]

    def test_each_listener_gets_its_own_state_back(self, tmp_path: Path) -> None:
        class Counting:
            def __init__(self, name: str | None = None) -> None:
                self.count = 0
                if name is not None:
                    self.name = name

            def on_batch_end(self, event: Any) -> None:
                self.count += 1

            def state_dict(self) -> dict[str, int]:
                return {"count": self.count}

            def load_state_dict(self, state: dict[str, int]) -> None:
                self.count = state["count"]

        def go(until: str, listeners: list[Any]) -> None:
            ft.fit(program(), batches(), until=until, directory=tmp_path, listeners=listeners)

        go("2 steps", [Recorder(), Counting(), Counting("a-b"), Counting(), Counting("a-b")])
        again = [Counting("a-b"), Counting(), Counting("new")]
        go("3 steps", again)
        assert [each.count for each in again] == [3, 3, 1]

    def test_an_error_closes_those_that_have_no_train_end(self) -> None:
        closed: list[str] = []

        class Failing:
            def on_batch_end(self, event: Any) -> None:
                raise KeyError("mine")

        class Closing:
            def on_train_end(self, event: Any) -> None:
                closed.append("ended")

            def close(self) -> None:
                closed.append("closed")
                raise OSError("disk")

        with pytest.raises(errors.ListenerError) as caught:
            ft.fit(program(), batches(), until="3 steps", listeners=[Closing(), Failing()])
        assert closed == ["closed"]
        assert "Closing.close failed too: OSError: disk" in caught.value.__notes__
        ft.fit(program(), batches(), until="3 steps", listeners=[Closing()])
        assert closed == ["closed", "ended"]

    def test_an_object_that_listens_to_nothing_is_an_error(self) -> None:
        with pytest.raises(errors.ListenerError, match="on_train_begin"):
            ft.fit(program(), batches(), until="1 steps", listeners=[object()])


@pytest.mark.row(25)
class TestEarlyStop:
    def test_stops_at_the_patience_th_miss_and_says_so(self) -> None:
        made = program(optimizer=ft.optim.SGD(lr=0.0))
        run = ft.fit(
            made,
            batches(),
            until="100 steps",
            eval_data=batches(5),
            eval_every="2 steps",
            early_stop=ft.EarlyStop("accuracy", patience=3, mode="max"),
        )
        # Nothing learns, and the batch statistics are the only thing that moves.
        assert run.reason == "early_stop"
        assert "accuracy has not improved" in run.detail

    @pytest.mark.parametrize(
        ("options", "values", "stops"),
        [
            ({"patience": 2}, [3.0, 2.0, 2.0, 2.0, 1.0], 4),
            ({"patience": 2, "mode": "max"}, [1.0, 2.0, 1.0, 2.0], 4),
            ({"patience": 1, "min_delta": 0.5}, [3.0, 2.6, 2.0], 2),
            ({"patience": 1, "min_delta": 0.1, "relative": True}, [-10.0, -10.5, -12.0], 2),
            ({"patience": 1, "min_delta": 0.1, "relative": True}, [-10.0, -11.5, -13.0], None),
            (
                {"patience": 1, "mode": "max", "min_delta": 0.1, "relative": True},
                [-10.0, -8.9],
                None,
            ),
            ({"patience": 9, "upper": 5.0}, [3.0, 6.0], 2),
            ({"patience": 9, "upper": 5.0}, [3.0, math.nan], 2),
            ({"patience": 9, "lower": 1.0}, [3.0, 0.5], 2),
            ({"patience": 2}, [math.nan, math.nan], 2),
            ({"patience": 2}, [math.inf, 3.0, math.nan, 2.0], None),
        ],
    )
    def test_decisions(self, options: Any, values: list[float], stops: int | None) -> None:
        rule = ft.EarlyStop("loss", **options)
        state, found = rule.init(), None
        for number, value in enumerate(values, 1):
            state = rule.observe(state, {"eval/loss": value})
            if state["stop"] and found is None:
                found = number
        assert found == stops

    def test_a_missing_target_is_an_error(self) -> None:
        with pytest.raises(errors.MissingMetricError, match="early_stop depends on 'f1'"):
            ft.fit(
                program(),
                batches(),
                until="6 steps",
                eval_data=batches(5),
                early_stop=ft.EarlyStop("f1"),
            )


class TestWhatWaitsInVain:
    def test_a_rule_without_evaluations(self) -> None:
        with pytest.raises(errors.MissingMetricError, match="have no effect: early_stop"):
            ft.fit(program(), batches(), until="2 steps", early_stop=ft.EarlyStop())

    def test_a_schedule_without_evaluations(self) -> None:
        made = program(optimizer=ft.optim.SGD(lr=ft.schedules.Plateau(0.1)))
        with pytest.raises(errors.MissingMetricError, match="the learning rate schedule"):
            ft.fit(made, batches(), until="2 steps")

    def test_a_schedule_that_goes_by_steps_needs_none(self) -> None:
        schedule = ft.schedules.Plateau(0.1, observes="step")
        run = ft.fit(program(optimizer=ft.optim.SGD(lr=schedule)), batches(), until="2 steps")
        assert run.reason == "max_steps"

    def test_a_best_without_evaluations(self, tmp_path: Path) -> None:
        store = ft.Checkpoints(tmp_path, monitor="eval/loss")
        with pytest.warns(errors.MissingMetricWarning, match="best checkpoint by 'eval/loss'"):
            ft.fit(program(), batches(), until="2 steps", directory=store)

    def test_a_best_by_a_misspelt_metric(self, tmp_path: Path) -> None:
        store = ft.Checkpoints(tmp_path, monitor="eval/los")
        with pytest.raises(errors.MissingMetricError, match=r"'eval/los'.*mean 'eval/loss'"):
            ft.fit(program(), batches(), until="2 steps", eval_data=batches(5), directory=store)


class TestCheckpoints:
    @pytest.mark.row(26)
    def test_the_best_is_kept_and_restored(self, tmp_path: Path) -> None:
        store = ft.Checkpoints(tmp_path, keep_last=1, keep_best=1, monitor="loss")
        run = ft.fit(
            program(optimizer=ft.optim.SGD(lr=3.0)),
            batches(),
            until="12 steps",
            eval_data=batches(9),
            eval_every="1 steps",
            directory=store,
        )
        steps, values = run.history.column("eval/loss")
        best = steps[values.index(min(values))]
        assert run.best == {"value": min(values), "step": best}
        assert store.best() == best
        assert set(store.steps()) == {best, 12}

    @pytest.mark.row(37)
    def test_calling_again_continues_or_is_done(self, tmp_path: Path) -> None:
        ft.fit(program(), batches(), until="5 steps", directory=tmp_path)
        run = ft.fit(program(), batches(), until="9 steps", directory=tmp_path)
        straight = ft.fit(program(), batches(), until="9 steps")
        assert tree.diff(run.state, straight.state) == []
        assert run.history["step"] == list(range(1, 10))
        before = sorted(path.name for path in tmp_path.iterdir())
        done = ft.fit(program(), batches(), until="9 steps", directory=tmp_path)
        assert tree.diff(done.state, run.state) == []
        assert done.reason == "max_steps"
        assert sorted(path.name for path in tmp_path.iterdir()) == before

    def test_the_state_that_a_run_began_with_or_stands_at_may_be_given_again(
        self, tmp_path: Path
    ) -> None:
        """Warnings are errors here."""
        began = program().init(seed=3)
        run = ft.fit(program(), batches(), until="2 steps", directory=tmp_path, state=began)
        run = ft.fit(program(), batches(), until="3 steps", directory=tmp_path, state=run.state)
        run = ft.fit(program(), batches(), until="4 steps", directory=tmp_path, state=began)
        assert run.state.counters.step == 4

    @pytest.mark.parametrize("step", [2, 3])
    def test_another_state_is_not_used_and_warned_about(self, tmp_path: Path, step: int) -> None:
        own = ft.fit(program(), batches(), until="2 steps", directory=tmp_path).state
        other = ft.fit(program(), batches(), until=f"{step} steps", seed=1).state
        with pytest.warns(errors.ResumeWarning, match=f"state of step {step}.*of step 2"):
            run = ft.fit(program(), batches(), until="2 steps", directory=tmp_path, state=other)
        assert tree.diff(run.state, own) == []

    def test_without_resume_a_directory_that_holds_a_run_is_refused(self, tmp_path: Path) -> None:
        ft.fit(program(), batches(), until="2 steps", directory=tmp_path)
        with pytest.raises(errors.ConfigurationError, match="holds a run already"):
            ft.fit(program(), batches(), until="4 steps", directory=tmp_path, resume=False)

    @pytest.mark.row(39)
    def test_another_architecture_is_an_error_that_lists_paths(self, tmp_path: Path) -> None:
        ft.fit(program(), batches(), until="2 steps", directory=tmp_path)
        other = ft.program(nn.Sequential(nn.Linear(3, 2)), loss, ft.optim.AdamW(lr=0.01))
        with pytest.raises(errors.CheckpointMismatchError, match=r"params\.3\.weight"):
            ft.fit(other, batches(), until="4 steps", directory=tmp_path)

    @pytest.mark.row(39)
    def test_a_changed_recipe_is_warned_about(self, tmp_path: Path) -> None:
        ft.fit(program(), batches(), until="2 steps", directory=tmp_path)
        other = program(optimizer=ft.optim.AdamW(lr=0.5))
        with pytest.warns(errors.RecipeChangedWarning, match=r"optimizer\.lr: 0\.01 .* 0\.5 now"):
            ft.fit(other, batches(), until="4 steps", directory=tmp_path)

    @pytest.mark.row(39)
    @pytest.mark.parametrize(
        ("other", "told"),
        [
            (
                ft.data.Batches(columns(SAMPLES), SIZE // 2),
                rf"data\.batch_size: {SIZE} .* {SIZE // 2} now",
            ),
            (batches(seed=5), r"data\.seed: 0 in the checkpoint, 5 now"),
            (batches(2 * SAMPLES), r"data\.batches_in_an_epoch"),
            (ft.data.prefetched(batches(seed=5), "cpu"), r"data\.seed"),
        ],
        ids=["batch size", "seed", "length", "prefetched"],
    )
    def test_changed_data_is_warned_about(self, tmp_path: Path, other: Any, told: str) -> None:
        ft.fit(program(), batches(), until="2 steps", directory=tmp_path)
        with pytest.warns(errors.RecipeChangedWarning, match=told):
            ft.fit(program(), other, until="4 steps", directory=tmp_path)

    @pytest.mark.row(35)
    def test_a_damaged_newest_is_passed_over(self, tmp_path: Path) -> None:
        options: Any = {"save_every": "2 steps", "directory": tmp_path}
        ft.fit(program(), batches(), until="4 steps", **options)
        payload = next((tmp_path / "step-00000004").glob("*params*"))
        data = bytearray(payload.read_bytes())
        data[-3] ^= 1
        payload.write_bytes(data)
        with pytest.warns(errors.CheckpointSkippedWarning, match="step-00000004"):
            run = ft.fit(program(), batches(), until="6 steps", **options)
        straight = ft.fit(program(), batches(), until="6 steps", directory=tmp_path / "b")
        assert tree.diff(run.state, straight.state) == []
        assert rows(tmp_path) == rows(tmp_path / "b")

    def test_a_disk_that_is_full_leaves_the_older_checkpoint(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        options: Any = {"save_every": "2 steps", "directory": tmp_path}
        ft.fit(program(), batches(), until="4 steps", **options)
        with monkeypatch.context() as patch:
            real = os.fsync

            def full(fd: int) -> None:
                if "step-" in os.readlink(f"/proc/self/fd/{fd}"):
                    raise OSError(28, "No space left on device")
                real(fd)

            patch.setattr(os, "fsync", full)
            with pytest.raises(errors.CheckpointWriteError):
                ft.fit(program(), batches(), until="8 steps", **options)
        run = ft.fit(program(), batches(), until="8 steps", **options)
        straight = ft.fit(program(), batches(), until="8 steps", directory=tmp_path / "b")
        assert tree.diff(run.state, straight.state) == []
        assert rows(tmp_path) == rows(tmp_path / "b")

    def test_a_log_that_lost_rows_is_an_error(self, tmp_path: Path) -> None:
        ft.fit(program(), batches(), until="4 steps", directory=tmp_path)
        (tmp_path / "metrics.jsonl").write_bytes(b"")
        with pytest.raises(errors.LogError, match="rows were lost"):
            ft.fit(program(), batches(), until="6 steps", directory=tmp_path)


@pytest.mark.row(10)
def test_a_non_finite_step_ends_the_run_with_its_own_reason(tmp_path: Path) -> None:
    def exploding(model: nn.Module, batch: Any) -> torch.Tensor:
        x, flag = batch
        return (model(x) * flag.sum()).mean()

    x = torch.randn(4, 3)
    data = [(x, torch.ones(1))] * 4 + [(x, torch.full((1,), math.nan))] + [(x, torch.ones(1))]
    made = ft.program(nn.Linear(3, 1), exploding, ft.optim.SGD(lr=0.1))
    with pytest.warns(errors.NonFiniteWarning, match="step 4"):
        run = ft.fit(made, data, until="6 steps", directory=tmp_path)
    assert (run.reason, run.state.counters.step) == ("nonfinite", 4)
    assert ft.Checkpoints(tmp_path).steps()[-1] == 4
    skipping = ft.program(nn.Linear(3, 1), exploding, ft.optim.SGD(lr=0.1), nonfinite="skip")
    run = ft.fit(skipping, data, until="6 steps")
    assert (run.reason, run.state.counters.skipped.item()) == ("max_steps", 1)


@pytest.mark.row(38)
class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("moment", ["on_batch_end", "on_eval_begin"])
    def test_are_noticed_and_the_run_resumes_exactly(
        self, tmp_path: Path, number: signal.Signals, moment: str
    ) -> None:
        class Interrupting:
            def __init__(self) -> None:
                method = lambda event: self.send(event.state.counters.step)  # noqa: E731
                setattr(self, moment, method)

            def send(self, step: int) -> None:
                if step == 6:
                    os.kill(os.getpid(), number)

        options: Any = {"until": "11 steps", "eval_data": batches(9), "eval_every": "3 steps"}
        handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
        made = program(ema=0.9)
        run = ft.fit(made, batches(), directory=tmp_path, listeners=[Interrupting()], **options)
        assert (run.reason, run.state.counters.step) == ("interrupted", 6)
        assert number.name in run.detail
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
        again = ft.fit(made, batches(), directory=tmp_path, **options)
        straight = ft.fit(made, batches(), directory=tmp_path / "straight", **options)
        assert tree.diff(again.state, straight.state) == []
        assert (tmp_path / "metrics.jsonl").read_bytes() == (
            tmp_path / "straight" / "metrics.jsonl"
        ).read_bytes()


@pytest.mark.row(5)
def test_accumulation_groups_loader_batches_and_a_short_tail() -> None:
    run = ft.fit(program(accumulate=4), batches(), until="2 epochs")
    assert run.state.counters.step == 4
    assert run.state.counters.samples == 2 * SAMPLES


@pytest.mark.row(11)
def test_empty_batches_within_the_data_are_counted() -> None:
    empty = (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    whole = columns(4)
    with pytest.warns(errors.EmptyBatchWarning):
        run = ft.fit(program(), [whole, empty, whole, empty], until="2 epochs")
    assert (run.state.counters.step, run.state.counters.empty) == (4, 4)
    assert run.state.counters.epoch == 2


@pytest.mark.row(20)
def test_plateau_sees_the_evaluations() -> None:
    plateau = ft.schedules.Plateau(lr=1.0, factor=0.5, patience=0)
    made = program(optimizer=ft.optim.SGD(lr=plateau))
    run = ft.fit(made, batches(), until="9 steps", eval_data=batches(9), eval_every="1 steps")
    lr, best = 1.0, math.inf
    for step, value in enumerate(run.history["eval/loss"][:-1]):
        assert run.history["lr"][step] == lr
        if value < best * (1 - 1e-4):
            best = value
        else:
            lr /= 2
    assert run.history["lr"][-1] < 1.0


class TestIterate:
    def test_goes_through_the_rest_of_the_epoch(self) -> None:
        made = program()
        state = made.init()
        for state, _ in ft.iterate(made, state, batches()):
            if state.counters.step == 2:
                break
        steps = [s.counters.step for s, _ in ft.iterate(made, state, batches())]
        assert steps == [3, 4, 5, 6]

    def test_epoch_by_epoch_is_fit(self) -> None:
        made = program(ema=0.9)
        state = made.init()
        for _ in range(2):
            for state, _ in ft.iterate(made, state, batches()):
                pass
        assert tree.diff(state, ft.fit(made, batches(), until="2 epochs").state) == []

    def test_until(self) -> None:
        made = program()
        steps = [
            s.counters.step for s, _ in ft.iterate(made, made.init(), batches(), until="8 steps")
        ]
        assert steps == list(range(1, 9))


@pytest.mark.row(30)
@pytest.mark.row(33)
class TestAnyLoader:
    def loader(self, **options: Any) -> Any:
        dataset = torch.utils.data.TensorDataset(*columns())
        return torch.utils.data.DataLoader(dataset, SIZE, shuffle=True, **options)

    @pytest.mark.parametrize("own_generator", [False, True])
    def test_a_dataloader_resumes_exactly_within_an_epoch(
        self, tmp_path: Path, own_generator: bool
    ) -> None:
        def make() -> Any:
            generator = torch.Generator().manual_seed(3) if own_generator else None
            return self.loader(generator=generator)

        torch.manual_seed(1)
        straight = ft.fit(program(), make(), until="15 steps")
        torch.manual_seed(2)
        ft.fit(program(), make(), until="8 steps", directory=tmp_path)
        with pytest.warns(errors.ReplayWarning, match="2 batches are drawn and dropped"):
            run = ft.fit(program(), make(), until="15 steps", directory=tmp_path)
        assert tree.diff(straight.state, run.state) == []
        done = ft.fit(program(), make(), until="15 steps", directory=tmp_path)
        assert tree.diff(straight.state, done.state) == []

    def test_a_loader_that_ends_before_its_own_length(self) -> None:
        class Short:
            def __len__(self) -> int:
                return 10

            def __iter__(self) -> Any:
                return iter([columns(4)] * 4)

        with pytest.raises(errors.DataChangedError, match=r"10 batches, .* ended after 4\. Eval"):
            ft.fit(program(), Short(), until="2 epochs", eval_data=Short())
        with pytest.raises(errors.DataChangedError, match=r"ended after 4"):
            list(ft.iterate(program(accumulate=3), program().init(), Short()))
        assert ft.evaluate(program(), program().init(), Short())["loss"] > 0

    def test_an_evaluation_leaves_the_loaders_own_generator_as_it_was(self) -> None:
        generator = torch.Generator().manual_seed(3)
        loader, made = self.loader(generator=generator), program()
        before = generator.get_state()
        first, second = (ft.evaluate(made, made.init(), loader) for _ in range(2))
        assert first == second
        assert torch.equal(before, generator.get_state())

    def test_global_generators_are_left_alone(self) -> None:
        made, before = program(), torch.get_rng_state()
        ft.fit(made, self.loader(), until="9 steps", eval_data=self.loader())
        assert torch.equal(before, torch.get_rng_state())

    def test_a_loader_with_state_dict_goes_there_at_once(self, tmp_path: Path) -> None:
        class Counting:
            """Endless numbers; remembers where it is."""

            def __init__(self) -> None:
                self.position = 0
                self.drawn = 0

            def __len__(self) -> int:
                return 8

            def __iter__(self) -> Any:
                while True:
                    x = torch.full((2, 3), float(self.position))
                    x[0] *= -1
                    self.position += 1
                    self.drawn += 1
                    yield x, torch.tensor([0, 1])
                    if self.position % 8 == 0:
                        return

            def state_dict(self) -> dict[str, int]:
                return {"position": self.position}

            def load_state_dict(self, state: dict[str, int]) -> None:
                self.position = state["position"]

        straight = ft.fit(program(), Counting(), until="19 steps")
        ft.fit(program(), Counting(), until="12 steps", directory=tmp_path)
        data = Counting()
        run = ft.fit(program(), data, until="19 steps", directory=tmp_path)
        assert tree.diff(straight.state, run.state) == []
        assert data.drawn <= 8

        # A loss that fails must not cost the batch it was given.
        armed = True

        def failing(model: nn.Module, batch: Any) -> Any:
            if armed and batch[0][0, 0] == -13.0:
                raise ZeroDivisionError("mine")
            return loss(model, batch)

        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 2))
        made = ft.program(model, failing, ft.optim.AdamW(lr=0.01))
        where = {"directory": tmp_path / "failing", "save_every": "2 steps"}
        with pytest.raises(ZeroDivisionError):
            ft.fit(made, Counting(), until="19 steps", **where)
        armed = False
        with pytest.warns(errors.RecipeChangedWarning, match="loss.armed: True"):
            run = ft.fit(made, Counting(), until="19 steps", **where)
        assert tree.diff(straight.state, run.state) == []
