"""The metrics that a run depends on: their modes, and that an evaluation gives them."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import nn

import functrain as ft
from functrain import errors

RISING = (0.59, 0.75, 0.83, 0.7, 0.6, 0.5)
X = torch.ones(2, 1)


class Played:
    """An evaluation that gives chosen numbers, one a call."""

    def __init__(self, name: str, values: Iterable[float], make: Any = float) -> None:
        self.name, self.values, self.make = name, itertools.chain(values), make
        self.calls = 0

    def __call__(self, model: nn.Module, batch: Any) -> ft.Loss:
        self.calls += 1
        metrics = {self.name: self.make(next(self.values))} if self.name else {}
        return ft.Loss(torch.tensor(1.0), metrics=metrics)


def program(evaluate: Any, lr: Any = 0.0, **options: Any) -> ft.Program:
    torch.manual_seed(0)
    loss = lambda model, batch: model(batch).square().mean()  # noqa: E731
    return ft.program(nn.Linear(1, 1), loss, ft.optim.SGD(lr=lr), evaluate=evaluate, **options)


def go(
    evaluate: Any, until: str = "6 epochs", lr: Any = 0.0, ema: Any = None, **options: Any
) -> ft.Run:
    return ft.fit(program(evaluate, lr, ema=ema), [X], until=until, **{"eval_data": [X], **options})


def right(share: float) -> ft.metrics.Accuracy:
    return ft.metrics.Accuracy(torch.tensor(share * 100), torch.tensor(100.0))


class Gives:
    """A metric of a user's own, which may say which of two values is better."""

    def __init__(self, value: float, higher: Any = None) -> None:
        self.value, self.higher_is_better = value, higher

    def merge(self, other: Any) -> Any:
        return self

    def compute(self) -> float:
        return self.value


class TestDirection:
    """More of an accuracy is better, for each part of a run."""

    @pytest.mark.parametrize(
        ("name", "values", "best"),
        [
            ("accuracy", RISING, 3),
            ("val_f1", RISING, 3),
            ("auroc", RISING, 3),
            ("r2", RISING, 3),
            ("error", [1 - each for each in RISING], 3),
            ("perplexity", [10 - each for each in RISING], 3),
            ("rmse", [1 - each for each in RISING], 3),
        ],
    )
    def test_a_run_stops_after_the_best_and_restores_it(
        self, name: str, values: Any, best: int, tmp_path: Path
    ) -> None:
        store = ft.Checkpoints(tmp_path, keep_last=1, keep_best=1, monitor=f"eval/{name}")
        run = go(
            Played(name, values),
            early_stop=ft.EarlyStop(f"eval/{name}", patience=2),
            directory=store,
            restore_best=True,
        )
        assert (run.reason, run.history["step"][-1]) == ("early_stop", best + 2)
        assert (run.best["step"], store.best(), run.state.counters.step) == (best, best, best)
        assert run.best["value"] == pytest.approx(values[best - 1])
        assert store.restore("best")[0].train.counters.step == best

    def test_without_a_directory(self) -> None:
        rule = ft.EarlyStop("accuracy", patience=2)
        run = go(Played("accuracy", RISING), early_stop=rule, restore_best=True)
        assert (run.state.counters.step, run.history["step"][-1]) == (3, 5)

    @pytest.mark.parametrize("monitor", ["eval/a1", "a1"])
    def test_a_metric_object_says_it_where_the_name_does_not(
        self, monitor: str, tmp_path: Path
    ) -> None:
        rule = [ft.EarlyStop("loss", patience=9), ft.EarlyStop(monitor, patience=2)]
        store = ft.Checkpoints(tmp_path, keep_last=1, monitor=monitor)
        run = go(Played("a1", RISING, right), early_stop=rule, directory=store)
        assert (run.reason, run.best["step"], store.steps()) == ("early_stop", 3, [3, 5])
        assert store.best() == 3  # what the run knew stands in its checkpoints

    def test_an_object_of_torchmetrics_says_it(self) -> None:
        torchmetrics = pytest.importorskip("torchmetrics")
        made = torchmetrics.MeanAbsoluteError()

        def off(value: float) -> Any:
            return ft.metrics.from_torchmetrics(made, torch.tensor([value]), torch.zeros(1))

        run = go(Played("q", [3.0, 2.0, 1.0, 2.0, 2.0], off), early_stop=ft.EarlyStop("q", 2))
        assert (run.reason, run.best) == ("early_stop", {"value": 1.0, "step": 3})

    def test_nothing_is_assumed_of_another_name(self, tmp_path: Path) -> None:
        for options in (
            {"early_stop": ft.EarlyStop("eval/score", patience=2)},
            {"early_stop": ft.Overfit("eval/score", training="epoch/loss")},
            {"directory": ft.Checkpoints(tmp_path / "a", monitor="eval/score")},
            {"early_stop": [ft.EarlyStop(), ft.EarlyStop("score")]},
        ):
            with pytest.raises(errors.ConfigurationError, match=r"'(eval/)?score'.*mode='max'"):
                go(Played("score", RISING), **options)

    def test_what_a_name_and_its_object_say_must_agree(self) -> None:
        with pytest.raises(errors.ConfigurationError, match="implies mode='min', but"):
            go(Played("error", RISING, right), early_stop=ft.EarlyStop("error"))
        run = go(Played("error", RISING, right), early_stop=ft.EarlyStop("error", 2, mode="max"))
        assert run.best["step"] == 3

    def test_the_users_word_decides(self) -> None:
        run = go(Played("accuracy", RISING), early_stop=ft.EarlyStop("accuracy", 2, mode="min"))
        assert (run.reason, run.best["step"], run.state.counters.step) == ("early_stop", 1, 3)

    def test_a_set_that_is_evaluated_later_says_it_then(self) -> None:
        sets = {
            "eval": ft.Evaluation([X], every="1 step"),
            "slow": ft.Evaluation([X], every="3 steps"),
        }

        def measured(model: nn.Module, batch: Any) -> ft.Loss:
            return ft.Loss(torch.tensor(1.0))

        sets["slow"] = attrs.evolve(sets["slow"], function=Played("a1", RISING, right))
        run = go(measured, "12 epochs", eval_data=sets, early_stop=ft.EarlyStop("slow/a1", 9))
        assert run.best["step"] == 9

    def test_overfit_knows_both_directions(self) -> None:
        rule = ft.Overfit("eval/accuracy", patience=2)
        state = rule.init()
        for trained, evaluated in ((1.0, 0.5), (0.9, 0.6), (0.8, 0.5), (0.7, 0.4)):
            found = {"epoch/loss": trained, "eval/accuracy": evaluated}
            state = rule.observe(state, found)
        assert state["stop"]
        same = ft.Overfit("eval/score", training="epoch/score", patience=1, mode="max")
        state = same.init()
        for trained, evaluated in ((0.1, 0.5), (0.2, 0.4)):
            state = same.observe(state, {"epoch/score": trained, "eval/score": evaluated})
        assert state["stop"]

    def test_a_predicted_stop_knows_it(self) -> None:
        rule = ft.PredictedStop(bound=0.9, evaluations=20, monitor="accuracy")
        state = rule.init()
        for number in range(12):
            state = rule.observe(state, {"eval/accuracy": 0.5 - 0.4 * 0.6**number})
        assert "worse than 0.9" in state["stop"]


class TestPlateau:
    """The schedule uses the mode of the monitored metric."""

    def lrs(self, run: ft.Run) -> list[float]:
        return [round(each, 4) for each in run.history["lr"]]

    @pytest.mark.parametrize(
        "wrapped",
        [
            lambda plateau: plateau,
            lambda plateau: ft.schedules.Scaled(plateau, 1.0),
            lambda plateau: ft.schedules.Warmup(1.0, steps=0, then=plateau),
            lambda plateau: ft.schedules.Sequential([plateau, 1.0], boundaries=[99]),
            lambda plateau: ft.schedules.Joined([(0.99, plateau), (0.01, 1.0)], steps=200),
        ],
    )
    def test_takes_more_of_an_accuracy_for_better(self, wrapped: Any) -> None:
        schedule = wrapped(ft.schedules.Plateau(1.0, factor=0.5, patience=1))
        values = (0.5, 0.6, 0.7, 0.8, 0.7, 0.7, 0.7)
        rule = ft.EarlyStop("accuracy", patience=50)
        run = go(Played("accuracy", values), "7 epochs", schedule, early_stop=rule)
        assert self.lrs(run) == [1, 1, 1, 1, 1, 1, 0.5]

    def test_by_the_metric_of_the_store_and_in_groups(self, tmp_path: Path) -> None:
        lr = ft.schedules.Plateau(1.0, factor=0.5, patience=0)
        optimizer = ft.optim.groups([("weight", ft.optim.SGD(lr)), ("*", ft.optim.SGD(lr=1.0))])
        made = program(Played("a1", RISING, right))
        made = ft.program(
            nn.Linear(1, 1), made.recipe.loss, optimizer, evaluate=made.recipe.evaluate
        )
        store = ft.Checkpoints(tmp_path, monitor="eval/a1")
        run = ft.fit(made, [X], until="5 epochs", eval_data=[X], directory=store)
        assert self.lrs(run) == [1, 1, 1, 1, 0.5]

    def test_its_own_mode_decides(self) -> None:
        schedule = ft.schedules.Plateau(1.0, factor=0.5, patience=0, mode="min")
        rule = ft.EarlyStop("accuracy", patience=9)
        run = go(Played("accuracy", RISING), "3 epochs", schedule, early_stop=rule)
        assert self.lrs(run) == [1, 1, 0.5]

    def test_of_steps_takes_less_of_the_training_loss_for_better(self) -> None:
        schedule = ft.schedules.Plateau(1e-9, factor=0.5, patience=0, observes="step")
        rule = ft.EarlyStop("accuracy", patience=9)
        run = go(Played("accuracy", RISING), "3 epochs", schedule, early_stop=rule)
        assert run.reason == "max_epochs"

    def test_one_of_torch_needs_a_mode(self) -> None:
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
        rule = {"early_stop": ft.EarlyStop("accuracy", patience=9)}
        played = Played("accuracy", RISING)
        with pytest.raises(errors.ConfigurationError, match="Give it mode='max'"):
            go(played, "3 epochs", ft.schedules.from_torch(plateau, lr=1.0), **rule)
        assert played.calls == 0
        for mode, lrs in (("max", [1, 1, 1]), ("min", [1, 1, 0.1])):
            schedule = ft.schedules.from_torch(plateau, lr=1.0, patience=0, mode=mode)
            run = go(Played("accuracy", RISING), "3 epochs", schedule, **rule)
            assert self.lrs(run) == lrs

    def test_one_within_a_schedule_of_the_users_own_needs_a_mode(self) -> None:
        class Own:
            observes = "evaluation"

            def __init__(self, inner: Any) -> None:
                self.inner = inner

            def __call__(self, step: int) -> float:
                return 1.0

            def __getattr__(self, name: str) -> Any:
                return getattr(self.__dict__["inner"], name)

            def observe(self, state: Any, metric: Any) -> Any:
                return self.inner.observe(state, metric)

        rule = {"early_stop": ft.EarlyStop("accuracy", patience=9)}
        with pytest.raises(errors.ConfigurationError, match="Plateau in Own"):
            go(Played("accuracy", RISING), "3 epochs", Own(ft.schedules.Plateau(1.0)), **rule)

    def test_in_a_loop_of_ones_own(self) -> None:
        made = program(None, ft.schedules.Plateau(1.0, factor=0.5, patience=0))
        for mode, lr in (("max", 1.0), ("min", 0.5), (None, 0.5)):
            state = made.init()
            for value in (0.1, 0.2):
                state = made.observe(state, value, mode)  # type: ignore[arg-type]
            assert state.scheduler["lr"] == lr


class TestGoingOn:
    """Decisions by one metric are not compared with another."""

    def test_a_resumed_run_is_the_run_that_was_never_cut(self, tmp_path: Path) -> None:
        schedule = ft.schedules.Plateau(1.0, factor=0.5, patience=0)
        options = {"early_stop": ft.EarlyStop("a1", patience=2), "lr": schedule}
        whole = go(Played("a1", RISING, right), directory=tmp_path / "whole", **options)
        for until, values in (
            ("1 epochs", RISING),
            ("4 epochs", RISING[1:]),
            ("6 epochs", RISING[4:]),
        ):
            part = go(Played("a1", values, right), until, directory=tmp_path / "parts", **options)
        assert part.history.rows == whole.history.rows
        assert (part.detail, part.best) == (whole.detail, whole.best)

    @pytest.mark.parametrize("recorded", [True, False])
    def test_another_direction_begins_from_scratch_and_says_so(
        self, recorded: bool, tmp_path: Path
    ) -> None:
        name = {
            "early_stop": ft.EarlyStop("accuracy", patience=3, mode="min"),
            "directory": tmp_path,
        }
        go(Played("accuracy", (0.5, 0.6, 0.7)), "3 epochs", **name)
        if not recorded:  # as versions before wrote it
            strip_records(tmp_path)
        name["early_stop"] = ft.EarlyStop("accuracy", patience=3)
        with pytest.warns(errors.RecipeChangedWarning) as told:
            run = go(Played("accuracy", (0.8, 0.9, 0.7, 0.7)), "7 epochs", **name)
        assert len(told) == 2
        assert "less is better; the run now uses 'accuracy', more is better" in str(told[0].message)
        assert (run.best["step"], run.reason) == (5, "max_epochs")

    def test_another_metric_too(self, tmp_path: Path) -> None:
        go(Played("accuracy", RISING), "2 epochs", directory=tmp_path)
        with pytest.warns(errors.RecipeChangedWarning, match=r"best so far \(1\) used 'loss'"):
            run = go(
                Played("accuracy", RISING[2:]),
                "4 epochs",
                directory=ft.Checkpoints(tmp_path, monitor="eval/accuracy"),
            )
        assert run.best["step"] == 3

    def test_a_schedule_does_not_compare_two_metrics(self, tmp_path: Path) -> None:
        schedule = ft.schedules.Plateau(1.0)
        go(Played("accuracy", RISING), "2 epochs", schedule, directory=tmp_path)
        store = ft.Checkpoints(tmp_path, monitor="eval/accuracy")
        with pytest.raises(errors.ScheduleStateError, match="used 'loss', less is better so far"):
            go(Played("accuracy", RISING), "4 epochs", schedule, directory=store)

    def test_the_same_metric_under_its_full_name_goes_on_in_silence(self, tmp_path: Path) -> None:
        go(Played("", ()), "2 epochs", directory=tmp_path, early_stop=ft.EarlyStop("loss", 9))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rule = ft.EarlyStop("eval/loss", 9, mode="min")
            run = go(Played("", ()), "4 epochs", directory=tmp_path, early_stop=rule)
        assert run.best["step"] == 1


def strip_records(directory: Path) -> None:
    """Save the newest checkpoint again as versions without a record did."""
    store = ft.Checkpoints(directory)
    from functrain.training.resume import TYPES

    saved, manifest = store.restore(types=TYPES)
    info = {key: value for key, value in manifest.info.items() if key != "monitored"}
    store.save(saved, step=manifest.step or 0, metrics=manifest.metrics, info=info)


class TestMissing:
    """A metric that no evaluation gives is an error as soon as that is known."""

    @pytest.mark.parametrize(
        ("monitor", "near"),
        [
            ("evl/loss", "eval/loss"),
            ("val/accuracy", None),
            ("eval/ema/loss", "eval/loss"),
            ("train/loss", None),
        ],
    )
    @pytest.mark.parametrize("by", ["early_stop", "overfit", "directory", "plateau"])
    def test_a_name_that_cannot_be_is_refused_before_anything_is_trained(
        self, monitor: str, near: str | None, by: str, tmp_path: Path
    ) -> None:
        options: dict[str, Any] = {
            "early_stop": {"early_stop": [ft.EarlyStop(monitor)]},
            "overfit": {"early_stop": ft.Overfit(monitor)},
            "directory": {"directory": ft.Checkpoints(tmp_path / "run", monitor=monitor)},
            "plateau": {
                "directory": ft.Checkpoints(tmp_path / "run", monitor=monitor, keep_best=0),
                "lr": ft.schedules.Plateau(0.1),
            },
        }[by]
        played = Played("accuracy", RISING)
        with pytest.raises(
            errors.MissingMetricError, match="no evaluation of this run can give"
        ) as told:
            go(played, **options)
        assert played.calls == 0
        assert not (tmp_path / "run").exists()
        if near:
            assert f"did you mean {near!r}" in str(told.value)
        assert "are called eval/..." in str(told.value)
        assert ("averaged weights" in str(told.value)) == ("/ema/" in monitor)

    @pytest.mark.parametrize(
        ("options", "word"),
        [
            ({"early_stop": ft.EarlyStop()}, "early_stop"),
            ({"early_stop": ft.Overfit()}, "early_stop"),
            ({"restore_best": True}, "restore_best"),
            ({"lr": ft.schedules.Plateau(0.1)}, "the learning rate schedule"),
        ],
    )
    def test_without_evaluations_nothing_can_be_decided(self, options: Any, word: str) -> None:
        with pytest.raises(errors.MissingMetricError, match=f"have no effect: {word}. Give"):
            go(None, eval_data=None, **options)

    def test_a_set_of_averaged_weights_alone(self) -> None:
        sets = {"eval": ft.Evaluation([X], weights="ema")}
        with pytest.raises(errors.MissingMetricError, match=r"did you mean 'eval/ema/loss'"):
            go(None, eval_data=sets, ema=0.5, early_stop=ft.EarlyStop("eval/loss"))
        go(None, eval_data=sets, ema=0.5, early_stop=ft.EarlyStop("eval/ema/loss", 9))

    def test_the_default_names_with_a_set_of_another_name(self) -> None:
        with pytest.raises(errors.MissingMetricError, match="did you mean 'val/loss'"):
            go(None, eval_data={"val": [X]}, early_stop=ft.EarlyStop())
        go(None, "1 epochs", eval_data={"val": [X]})  # nothing depends on the loss

    @pytest.mark.parametrize("by", ["early_stop", "overfit", "training", "directory", "plateau"])
    def test_a_misspelt_metric_ends_the_first_evaluation_and_the_run_goes_on_corrected(
        self, by: str, tmp_path: Path
    ) -> None:
        def options(name: str) -> dict[str, Any]:
            store = {"directory": ft.Checkpoints(tmp_path, monitor=f"eval/{name}")}
            return {
                "early_stop": {
                    "early_stop": ft.EarlyStop(f"eval/{name}", 9),
                    "directory": tmp_path,
                },
                "overfit": {"early_stop": ft.Overfit(name, patience=9), "directory": tmp_path},
                "training": {
                    "early_stop": ft.Overfit("loss", training=f"epoch/{name}", patience=9),
                    "directory": tmp_path,
                },
                "directory": store,
                "plateau": {"lr": ft.schedules.Plateau(1.0, patience=9), **store},
            }[by]

        played = Played("accuracy", RISING)
        with pytest.raises(errors.MissingMetricError, match=r"did you mean '(\w+/)?loss'"):
            go(played, eval_every="2 epochs", **options("los"))
        assert played.calls == 1
        assert ft.Checkpoints(tmp_path).steps() == [1, 2]
        given = {"eval_every": "2 epochs", **options("loss")}
        run = go(Played("accuracy", RISING), **given)
        assert run.history["step"] == [1, 2, 3, 4, 5, 6]
        assert run.history.column("eval/loss")[0] == [2, 4, 6]

    @pytest.mark.parametrize("monitor", ["loss_of_training", "grad_norm", "lr"])
    def test_a_name_that_only_training_steps_have_is_missing(self, monitor: str) -> None:
        def loss(model: nn.Module, x: torch.Tensor) -> ft.Loss:
            value = model(x).square().mean()
            return ft.Loss(value, metrics={"loss_of_training": value} if model.training else {})

        trained = ft.program(nn.Linear(1, 1), loss, ft.optim.SGD(lr=0.1))
        stop = ft.EarlyStop(monitor, mode="min")
        with pytest.raises(errors.MissingMetricError, match=f"'{monitor}', but the evaluation"):
            ft.fit(trained, [X] * 3, until="3 epochs", eval_data=[X], early_stop=stop)

    def test_a_set_that_is_evaluated_later_is_not_missing_yet(self) -> None:
        sets = {"eval": ft.Evaluation([X]), "slow": ft.Evaluation([X], every="3 epochs")}
        with pytest.raises(errors.MissingMetricError, match="did you mean 'slow/loss'"):
            go(
                played := Played("accuracy", [1.0] * 9),
                eval_data=sets,
                early_stop=ft.EarlyStop("slow/los"),
            )
        assert played.calls == 4
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            go(Played("", ()), eval_data=sets, early_stop=ft.EarlyStop("slow/loss", 9))

    def test_a_metric_that_was_there_before_may_be_missing_once(self, tmp_path: Path) -> None:
        class Sometimes(Played):
            def __call__(self, model: nn.Module, batch: Any) -> ft.Loss:
                self.name = "auc" if self.calls % 2 == 0 else ""
                return super().__call__(model, batch)

        rule = ft.EarlyStop("auc", patience=9)
        with pytest.warns(errors.MissingMetricWarning, match="waits for 'auc'"):
            run = go(Sometimes("auc", RISING), "2 epochs", early_stop=rule, directory=tmp_path)
        played = Sometimes("auc", RISING)
        played.calls = 1  # missing in the first evaluation after resumption
        with pytest.warns(errors.MissingMetricWarning, match="waits for 'auc'"):
            run = go(played, "4 epochs", early_stop=rule, directory=tmp_path)
        assert (run.reason, run.best["step"]) == ("max_epochs", 1)

    def test_names_with_slashes(self) -> None:
        sets = {"a/b": [X], "a": [X]}
        rule = ft.EarlyStop("a/b/accuracy", patience=9)
        run = go(Played("accuracy", [0.1] * 4), "2 epochs", eval_data=sets, early_stop=rule)
        assert run.reason == "max_epochs"
        rule = ft.EarlyStop("eval/f/auc", patience=9)
        run = go(Played("f/auc", RISING), "2 epochs", early_stop=rule)
        assert run.reason == "max_epochs"

    def test_a_rule_of_the_users_own_that_does_not_say_what_it_goes_by(self) -> None:
        class Own:
            def init(self) -> dict[str, Any]:
                return {"stop": None}

            def observe(self, state: dict[str, Any], metrics: Any) -> dict[str, Any]:
                return {"stop": "enough"} if metrics["eval/score"] > 0.7 else state

        run = go(Played("score", RISING), early_stop=Own())
        assert (run.reason, run.state.counters.step) == ("early_stop", 2)
