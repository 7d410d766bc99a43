"""The search from Python: values, pruning, failures, and resuming without repeating work."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import functrain as ft
from functrain.errors import RecipeChangedWarning, RunChangedError, SearchError
from functrain.search import PredictedLossPruner, ProgramObjective, Search, report, search
from functrain.search.manifest import read_trial
from functrain.search.objective import Objective
from functrain.search.report import draw

pytestmark = pytest.mark.row(47)

optuna = pytest.importorskip("optuna")

X = torch.linspace(-1, 1, 16).reshape(-1, 1)
SPACE = {"lr": {"type": "float", "min": 1e-3, "max": 0.5, "log": True}, "k": ["a", [1, 2]]}
Calls = list[tuple[dict[str, Any], int]]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def data(batch_size: int = 8) -> ft.data.Batches:
    return ft.data.Batches((X, 3 * X), batch_size)


def loss(model: Any, batch: Any) -> torch.Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def train(
    params: dict[str, Any],
    seed: int,
    directory: Path,
    listeners: list[Any],
    stored: bool = False,  # most tests need no checkpoints
    **options: Any,
) -> ft.Run:
    program = ft.program(lambda: torch.nn.Linear(1, 1), loss, ft.optim.SGD(lr=params["lr"]))
    given: dict[str, Any] = {"until": "3 epochs", "directory": directory if stored else None}
    given |= {"eval_data": data(16), "listeners": listeners, "seed": seed} | options
    return ft.fit(program, data(), **given)


def listening(listener: Any, stored: bool = False) -> Objective:
    def objective(params: Any, seed: int, directory: Path, listeners: list[Any]) -> ft.Run:
        return train(params, seed, directory, [*listeners, listener], stored)

    return objective


class Recorder:
    """An objective that records its calls, and fails at chosen ones."""

    def __init__(
        self, fail: Callable[[int, int], object] = lambda call, seed: None, stored: bool = False
    ) -> None:
        self.calls: Calls = []
        self.fail = fail
        self.stored = stored

    def __call__(
        self, params: dict[str, Any], seed: int, directory: Path, listeners: list[Any]
    ) -> ft.Run:
        self.calls.append((params, seed))
        self.fail(len(self.calls), seed)
        return train(params, seed, directory, listeners, self.stored)


def found(objective: Any, directory: Path, **options: Any) -> Search:
    given = {"metric": "eval/loss", "trials": 4, "seeds": [0, 1], "say": lambda line: None}
    return search(objective, SPACE, directory=directory, **{**given, **options})


def states(result: Search) -> list[str]:
    return [row.state for row in report.rows(result.study)]


def test_every_trial_runs_all_seeds_and_uses_the_mean(tmp_path: Path) -> None:
    objective, said = Recorder(stored=True), []
    result = found(objective, tmp_path, say=said.append)
    assert (result.reason, states(result)) == ("trials", ["complete"] * 4)
    assert [seed for _, seed in objective.calls] == [0, 1] * 4
    for row in report.rows(result.study):
        seeds = read_trial(tmp_path / f"trial-{row.number:04d}")
        assert row.value == pytest.approx((seeds[0].value + seeds[1].value) / 2)
        assert row.std == pytest.approx(abs(seeds[0].value - seeds[1].value) / math.sqrt(2))
        assert (tmp_path / f"trial-{row.number:04d}" / "seed-1" / "metrics.jsonl").exists()
    best = report.ranked(result.study)
    assert best[0].value == min(row.value for row in report.rows(result.study))
    assert len(said) == 4
    assert "±" in said[0]


def test_finished_seeds_do_not_run_again(tmp_path: Path) -> None:
    found(Recorder(), tmp_path)
    again = Recorder()
    assert found(again, tmp_path).reason == "trials"
    assert again.calls == []
    more = Recorder()
    result = found(more, tmp_path, trials=5)
    assert len(more.calls) == 2
    assert states(result) == ["complete"] * 5


@pytest.mark.filterwarnings("ignore:.* has trials of other code")  # that is not interrupted
@pytest.mark.sweep
@pytest.mark.parametrize("call", [4, 1])
def test_an_interrupted_search_draws_the_same_parameters(tmp_path: Path, call: int) -> None:
    def interrupt(number: int, seed: int) -> None:
        if number == call:
            raise KeyboardInterrupt

    whole, first, second = Recorder(), Recorder(interrupt), Recorder()
    found(whole, tmp_path / "whole")
    assert found(first, tmp_path / "parts").reason == "interrupted"
    result = found(second, tmp_path / "parts")
    assert states(result) == ["complete"] * 4  # no trial is lost or counted twice
    assert first.calls[:-1] + second.calls == whole.calls
    assert len({params["lr"] for params, _ in whole.calls}) == 4
    values = [row.value for row in report.rows(result.study)]
    assert values == [row.value for row in report.rows(found(whole, tmp_path / "whole").study)]


def test_an_unfinished_run_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    begun: list[int] = []

    class Interrupt:
        def on_train_begin(self, event: Any) -> None:
            begun.append(event.state.counters.step)

        def on_epoch_end(self, event: Any) -> None:
            if event.complete and len(begun) == 1:
                raise KeyboardInterrupt

    objective = listening(Interrupt(), stored=True)
    assert found(objective, tmp_path, trials=1).reason == "interrupted"
    result = found(objective, tmp_path, trials=1)
    assert states(result) == ["complete"]
    assert begun == [0, 2, 0]


def test_bad_trials_are_pruned_in_their_first_seed(tmp_path: Path) -> None:
    objective = Recorder()
    pruner = {"name": "ThresholdPruner", "upper": 2.0}
    result = found(objective, tmp_path, pruner=pruner, trials=6)
    counted = report.counts(result.study)
    assert counted.keys() == {"complete", "pruned"}
    assert len(objective.calls) == 2 * counted["complete"] + counted["pruned"]
    for row in report.rows(result.study):
        if row.state == "pruned":
            assert row.detail.startswith("pruned at step 2 with eval/loss")
            assert read_trial(tmp_path / f"trial-{row.number:04d}")[0].reason == "pruned"


class TestOnlyPruningIsPruning:
    """Exceptions, NaN and early stops do not count as pruning."""

    def test_an_exception_fails_the_trial_and_the_search_continues(self, tmp_path: Path) -> None:
        def fail(call: int, seed: int) -> None:
            if call == 3:
                raise ValueError("no such width\nand more")

        said: list[str] = []
        result = found(Recorder(fail), tmp_path, say=said.append)
        assert states(result) == ["complete", "failed", "complete", "complete"]
        row = report.rows(result.study)[1]
        assert row.detail.startswith("seed 0: ValueError: no such width (test_search.py, line ")
        assert str(tmp_path / "trial-0001") in said[1]
        assert "Traceback" in (tmp_path / "trial-0001" / "error.txt").read_text()

    def test_an_exception_in_the_model_fails_the_trial(self, tmp_path: Path) -> None:
        class Broken:
            def on_eval_end(self, event: Any) -> None:
                raise RuntimeError("broken")

        objective = listening(Broken())
        result = found(objective, tmp_path, trials=1)
        assert states(result) == ["failed"]
        assert "broken" in report.rows(result.study)[0].detail

    def test_a_nonfinite_loss_fails_the_trial(self, tmp_path: Path) -> None:
        def objective(params: dict[str, Any], *given: Any) -> ft.Run:
            return train({"lr": 1e30}, *given)

        with pytest.warns(ft.errors.NonFiniteWarning):
            result = found(objective, tmp_path, trials=1, pruner={"name": "MedianPruner"})
        assert states(result) == ["failed"]
        assert "seed 0: nonfinite: step" in report.rows(result.study)[0].detail

    def test_a_nonfinite_metric_fails_the_trial(self, tmp_path: Path) -> None:
        def objective(params: Any, seed: int, directory: Path, listeners: list[Any]) -> ft.Run:
            def nan(model: Any, batch: Any) -> torch.Tensor:
                return loss(model, batch) * math.nan

            program = ft.program(torch.nn.Linear(1, 1), loss, ft.optim.SGD(lr=0.1), evaluate=nan)
            return ft.fit(program, data(), until="2 epochs", eval_data=data(), listeners=listeners)

        pruner = {"name": "ThresholdPruner", "upper": 0.5}  # which would prune NaN
        result = found(objective, tmp_path, trials=1, pruner=pruner)
        assert states(result) == ["failed"]
        assert "eval/loss is nan" in report.rows(result.study)[0].detail

    def test_early_stopping_and_limits_complete_the_trial(self, tmp_path: Path) -> None:
        rule = ft.EarlyStop("loss", upper=1e-9)
        objective = partial(train, early_stop=rule)
        assert states(found(objective, tmp_path / "stop", trials=2)) == ["complete"] * 2
        objective = partial(train, until="1 step")
        # The prune decision comes at the last step, when the run is over anyway.
        pruner = {"name": "ThresholdPruner", "upper": 1e-9}
        result = found(objective, tmp_path / "limit", trials=2, pruner=pruner)
        assert states(result) == ["complete"] * 2

    def test_a_user_listener_that_stops_completes_the_trial(self, tmp_path: Path) -> None:
        class Enough:
            def on_eval_end(self, event: Any) -> ft.Stop:
                return ft.Stop("enough")

        objective = listening(Enough())
        result = found(objective, tmp_path, trials=1)
        assert states(result) == ["complete"]
        assert report.rows(result.study)[0].detail == "enough"


def test_the_search_ends_at_too_many_exceptions(tmp_path: Path) -> None:
    def fail(call: int, seed: int) -> None:
        raise ValueError("always")

    objective = Recorder(fail)
    result = found(objective, tmp_path, trials=50, max_failures=3)
    assert (result.reason, len(objective.calls)) == ("failures", 3)


def test_a_small_space_is_searched_once(tmp_path: Path) -> None:
    given = {"metric": "loss", "directory": tmp_path, "sampler": {"name": "BruteForceSampler"}}
    space, objective = {"lr": [0.1, 0.2, 0.3]}, Recorder()
    quiet: dict[str, Any] = {"say": lambda line: None}
    assert search(objective, space, **given, **quiet).reason == "exhausted"
    assert sorted(params["lr"] for params, _ in objective.calls) == [0.1, 0.2, 0.3]
    assert search(objective, space, **given, **quiet).reason == "exhausted"
    assert len(objective.calls) == 3


def test_no_trial_starts_after_the_timeout(tmp_path: Path) -> None:
    objective = Recorder()
    result = found(objective, tmp_path, timeout="0.001 seconds")
    assert (result.reason, len(objective.calls) <= 2) == ("timeout", True)


def test_maximizing_the_best_value(tmp_path: Path) -> None:
    given: dict[str, Any] = {"direction": "maximize", "metric": "loss", "value": "best"}
    result = found(Recorder(stored=True), tmp_path, **given, trials=2)
    best, other = report.ranked(result.study)
    assert best.value >= other.value
    seed = read_trial(tmp_path / f"trial-{best.number:04d}")[0]
    from functrain.metrics.log_file import read

    rows = read(tmp_path / f"trial-{best.number:04d}" / "seed-0" / "metrics.jsonl")
    assert seed.value == max(row["eval/loss"] for row in rows if "eval/loss" in row)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"metric": "eval/acuracy", "direction": "maximize"}, "do not measure 'eval/acuracy'"),
        ({"metric": "eval/lss", "direction": "minimize"}, "did you mean 'eval/loss'"),
        ({"metric": "eval/acuracy", "say": print}, "direction: .*did you mean 'accuracy'"),
        ({"metric": "eval/score", "value": "best"}, "direction: 'eval/score' is no well-known"),
        ({"direction": "maximise"}, "direction: .*did you mean 'maximize'"),
        ({"value": "mean"}, "value: expected last or best"),
        ({"trials": 0}, "trials: expected"),
        ({"seeds": []}, "seeds: expected"),
        ({"seeds": [1, 1]}, "seeds: expected"),
        ({"timeout": "3 epochs"}, "timeout: expected a time"),
        ({"sampler": {"name": "TPESmapler"}}, "sampler.name: .*did you mean 'TPESampler'"),
        ({"sampler": {"sede": 1}}, "sampler.sede: unknown key .did you mean 'seed'"),
        ({"sampler": {"seed": "a"}}, "sampler.seed: expected an int"),
        ({"pruner": {"name": "MedianPrunner"}}, "pruner.name: .*did you mean 'MedianPruner'"),
        ({"pruner": {"name": "PredictedLossPruner", "top": 0}}, "top: expected a number >= 1"),
        ({"pruner": {"name": "ThresholdPruner"}}, "pruner: "),
    ],
)
def test_mistakes_are_errors_with_the_argument(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(SearchError, match=message):
        found(train, tmp_path / "s", **changed)
    if "metric" not in changed or "direction" not in changed:
        assert not (tmp_path / "s").exists()


def test_a_well_known_metric_implies_the_direction(tmp_path: Path) -> None:
    def measured(model: Any, batch: Any) -> ft.Loss:
        return ft.Loss(loss(model, batch), metrics={"accuracy": -loss(model, batch)})

    def objective(params: Any, seed: int, directory: Path, listeners: list[Any]) -> ft.Run:
        sets = {"eval": ft.Evaluation(data(16), function=measured)}
        return train(params, seed, directory, listeners, eval_data=sets)

    result = found(objective, tmp_path, metric="eval/accuracy", value="best")
    values = [row.value for row in report.rows(result.study)]
    assert result.study.direction.name == "MAXIMIZE"
    assert report.ranked(result.study)[0].value == max(values)


@pytest.mark.parametrize("metric", ["eval/lss", "eval/ema/lss"])
def test_a_missing_metric_is_an_error_at_the_first_evaluation(metric: str, tmp_path: Path) -> None:
    begun: list[int] = []

    class Watching:
        def on_eval_begin(self, event: ft.events.EvalBegin) -> None:
            begun.append(event.state.counters.step)

    def objective(params: Any, seed: int, directory: Path, listeners: list[Any]) -> ft.Run:
        program = ft.program(torch.nn.Linear(1, 1), loss, ft.optim.SGD(lr=0.1), ema=0.5)
        given = {"eval_data": data(16), "listeners": [*listeners, Watching()]}
        return ft.fit(program, data(), until="3 epochs", **given)

    message = f"'{metric}'.*did you mean '{metric.replace('lss', 'loss')}'"
    with pytest.raises(SearchError, match=message):
        found(objective, tmp_path, metric=metric, direction="minimize")
    assert set(begun) == {2}


def test_a_search_prints_only_its_own_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    level, lines = optuna.logging.get_verbosity(), []
    optuna.logging.set_verbosity(optuna.logging.INFO)
    optuna.logging.enable_propagation()
    try:
        for _ in range(2):
            found(train, tmp_path, trials=1, say=lines.append)
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.disable_propagation()
        optuna.logging.set_verbosity(level)
    assert len(lines) == 1
    assert caplog.text == ""


@pytest.mark.parametrize("objective", [lambda params: 0.5, 3])
def test_an_objective_takes_what_a_run_needs(objective: Any, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"expected a function \(params, seed, directory, listen"):
        found(objective, tmp_path / "search")
    assert not (tmp_path / "search").exists()


def test_an_objective_must_return_its_run(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="got float"):
        found(lambda *given: 0.5, tmp_path)


def test_another_search_in_the_directory_is_an_error(tmp_path: Path) -> None:
    found(train, tmp_path, trials=1)
    with pytest.raises(RunChangedError, match=r"direction: 'minimize' there, 'maximize' now"):
        found(train, tmp_path, direction="maximize")
    with pytest.raises(RunChangedError, match=r"seeds: \[0, 1\] there, \[0\] now"):
        found(train, tmp_path, seeds=[0])
    pruner = {"name": "PatientPruner", "wrapped_pruner": {"name": "MedianPruner"}, "patience": 1}
    found(train, tmp_path, trials=1, sampler={"name": "RandomSampler"}, pruner=pruner)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_plots_and_importances_of_any_study(tmp_path: Path, count: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(2 * count):
        trial = study.ask()
        x = trial.suggest_float("x", 1e-3, 1.0, log=True)
        trial.suggest_int("n", 3, 3)
        trial.suggest_categorical("c", ["a", None])
        state = ("COMPLETE", "PRUNED", "FAIL")[(number > 1) * number % 3]
        value = x if state == "COMPLETE" else None
        study.tell(trial, value, state=optuna.trial.TrialState[state])
    study.ask()
    files = draw(study, tmp_path, "loss")
    assert [path.name for path in files] == (
        ["history.png", "slices.png", "parallel.png"] if count else []
    )
    shares = report.importances(study)
    assert bool(shares) == (count == 5)
    if shares:
        assert sum(shares.values()) == pytest.approx(1)
        assert next(iter(shares)) == "x"


def curves(study: Any, limits: list[float], steps: int = 20) -> list[int]:
    """Create a study with trials that decay towards limits."""
    made = []
    for limit in limits:
        trial = study.ask()
        trial.set_user_attr("steps", steps)
        for step in range(steps):
            trial.report(math.exp(-step / 4) + limit, step)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, limit)
        made.append(step + 1)
    return made


class TestPredictedLossPruner:
    @pytest.mark.row(48)
    def test_it_prunes_a_trial_that_will_end_worse_than_the_best(self) -> None:
        study = optuna.create_study(pruner=PredictedLossPruner(top=2))
        assert curves(study, [0.3, 0.1, 0.5, 0.2, 0.25, 0.05, 0.15]) == [20, 20, 5, 20, 5, 20, 5]

    @pytest.mark.row(48)
    def test_higher_may_be_better(self) -> None:
        pruner = PredictedLossPruner(top=1, patience=3, warmup=6)
        study = optuna.create_study(pruner=pruner, direction="maximize")
        assert curves(study, [0.3, 0.2, 0.4]) == [20, 8, 20]

    def test_it_waits_without_enough_information(self) -> None:
        study = optuna.create_study(pruner=PredictedLossPruner(top=3))
        assert curves(study, [0.1, 0.1, 0.9]) == [20] * 3
        trial = study.ask()  # of unknown length
        for step in range(10):
            trial.report(5 + math.exp(-step), step)
            assert not trial.should_prune()

    def test_a_margin_is_allowed(self) -> None:
        study = optuna.create_study(pruner=PredictedLossPruner(top=1, margin=0.1))
        assert curves(study, [0.1, 0.19, 0.21]) == [20, 20, 5]

    @pytest.mark.row(48)
    def test_it_prunes_in_a_search(self, tmp_path: Path) -> None:
        pruner = {"name": "PredictedLossPruner", "top": 1, "patience": 1}
        objective = partial(train, until="10 epochs")
        result = found(objective, tmp_path, pruner=pruner, trials=6, seeds=[0])
        assert report.counts(result.study)["pruned"] > 0


def shared_search(directory: Path, trials: int, **options: Any) -> Any:
    x = torch.ones(8, 1)
    fit = {
        "data": ft.data.Batches(x, 4),
        "eval_data": ft.data.Batches(2 * x, 4, shuffle=False),
        "until": "2 steps",
        **options,
    }

    def make(params: dict[str, Any]) -> ft.Program:
        loss = lambda model, batch: model(batch).square().mean()  # noqa: E731
        return ft.program(lambda: torch.nn.Linear(1, 1), loss, ft.optim.SGD(lr=params["lr"]))

    objective = ProgramObjective(make, fit=fit)
    space = {"lr": {"type": "float", "min": 1e-3, "max": 1e-1}}
    given: Any = {"metric": "eval/loss", "directory": directory, "trials": trials}
    return search(objective, space, say=lambda _: None, **given)


@pytest.mark.parametrize(
    "other",
    [
        {"data": ft.data.Batches(torch.zeros(8, 1), 4)},
        {"data": ft.data.Batches(torch.ones(8, 1), 2)},
        {"eval_data": ft.data.Batches(torch.zeros(8, 1), 4, shuffle=False)},
        {"eval_data": {"other": ft.data.Batches(torch.zeros(8, 1), 4, shuffle=False)}},
        {"until": "3 steps"},
        {"early_stop": ft.EarlyStop(patience=1)},
    ],
)
def test_trials_of_other_data_or_arguments_are_not_mixed(tmp_path: Path, other: Any) -> None:
    shared_search(tmp_path, 1)
    assert len(shared_search(tmp_path, 2).study.trials) == 2
    with pytest.raises(RunChangedError, match=next(iter(other))):
        shared_search(tmp_path, 3, **other)


def test_data_that_changes_as_it_is_read_may_differ(tmp_path: Path) -> None:
    class Log(torch.utils.data.Dataset[torch.Tensor]):
        def __init__(self) -> None:
            self.read = list[int]()

        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> torch.Tensor:
            self.read.append(index)
            return torch.ones(1)

    loader: Any = torch.utils.data.DataLoader(Log(), batch_size=4)
    shared_search(tmp_path, 1, data=loader)
    assert len(shared_search(tmp_path, 2, data=loader).study.trials) == 2


def test_trials_of_other_code_are_mixed_with_a_warning(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    def run(trials: int, scale: float) -> None:
        calls = list[int]()

        def objective(
            params: dict[str, Any], seed: int, directory: Path, listeners: list[Any]
        ) -> ft.Run:
            calls.append(seed)  # a counter is no other code
            loss = lambda model, batch: scale * model(batch).square().mean()  # noqa: E731
            program = ft.program(lambda: torch.nn.Linear(1, 1), loss, ft.optim.SGD(params["lr"]))
            x = [torch.ones(4, 1)]
            return ft.fit(
                program,
                x,
                eval_data=x,
                until="1 step",
                seed=seed,
                directory=directory,
                listeners=listeners,
            )

        where: Any = {"metric": "eval/loss", "directory": tmp_path, "say": lambda _: None}
        search(objective, {"lr": [0.1, 0.2, 0.3, 0.4]}, trials=trials, **where)
        search(objective, {"lr": [0.1, 0.2, 0.3, 0.4]}, trials=trials, **where)

    run(1, 1.0)
    run(2, 1.0)
    assert not [each for each in recwarn if each.category is RecipeChangedWarning]
    with pytest.warns(RecipeChangedWarning, match="scale"):
        run(3, 2.0)
