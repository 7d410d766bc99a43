"""A search whose trials train as populations: the results of a sequential one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.errors import SearchError
from functrain.search import ProgramObjective, Search, report, search
from functrain.search.manifest import Members, read_members, read_trial
from functrain.training.early_stopping import Halving, PopulationBasedTraining

optuna = pytest.importorskip("optuna")

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X.sum(1, keepdim=True)
SPACE = {
    "lr": {"type": "float", "min": 1e-3, "max": 0.2, "log": True},
    "decay": {"type": "float", "min": 0.0, "max": 0.1},
    "width": [4, 8],
}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def net(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.Dropout(0.1), nn.Linear(width, 1)).double()


def make(params: dict[str, Any]) -> ft.Program:
    optimizer = ft.optim.AdamW(lr=params["lr"], weight_decay=params.get("decay", 0.01))
    return ft.program(lambda: net(params.get("width", 4)), loss, optimizer)


def objective(made: Any = make, members: Any = ("lr", "decay"), **options: Any) -> ProgramObjective:
    data = ft.data.Batches((X, Y), 8)
    given = {"data": data, "until": "3 epochs", "eval_data": data, **options}
    return ProgramObjective(made, members, fit=given)


def found(directory: Path, own: Any = None, space: Any = SPACE, **options: Any) -> Search:
    given = {"trials": 6, "population": 6, "say": lambda line: None, **options}
    given = {"sampler": {"name": "RandomSampler", "seed": 1}, **given}
    return search(own or objective(), space, metric="eval/loss", directory=directory, **given)


def rows(result: Search) -> list[report.Row]:
    return report.rows(result.study)


def intermediate(result: Search) -> list[dict[int, float]]:
    return [trial.intermediate_values for trial in result.study.trials]


def require_same(one: Search, other: Search, rtol: float = 1e-9) -> None:
    """Require two searches to have the same trials, with the same values except for rounding."""
    assert len(rows(one)) == len(rows(other))
    for mine, theirs in zip(rows(one), rows(other), strict=True):
        assert (mine.params, mine.state) == (theirs.params, theirs.state)
        assert mine.value == pytest.approx(theirs.value, rel=rtol)
    for mine, theirs in zip(intermediate(one), intermediate(other), strict=True):
        assert mine == pytest.approx(theirs, rel=rtol)


def test_trials_as_populations_have_the_results_of_trials_one_by_one(tmp_path: Path) -> None:
    seeds = [0, 1]
    alone = found(tmp_path / "alone", population=1, seeds=seeds)
    together = found(tmp_path / "together", seeds=seeds)
    require_same(alone, together)
    populations = sorted(path.name for path in (tmp_path / "together").glob("population-*"))
    widths = [row.params["width"] for row in rows(alone)]
    groups = [[n for n, width in enumerate(widths) if width == value] for value in (4, 8)]
    assert all(len(group) > 1 for group in groups)
    assert populations == sorted(f"population-{group[0]:04d}" for group in groups)
    for group in groups:
        members = read_members(tmp_path / "together", group[-1])
        assert members is not None
        assert members.trials == group
        assert members.values["lr"] == [rows(alone)[n].params["lr"] for n in group]


def test_the_run_of_each_trial_is_written_as_alone(tmp_path: Path) -> None:
    space = {"lr": SPACE["lr"]}
    found(tmp_path / "alone", space=space, population=1, trials=2)
    found(tmp_path / "together", space=space, trials=2)
    for place in ("trial-0000/seed-0", "trial-0001/seed-0"):
        one, other = tmp_path / "alone" / place, tmp_path / "together" / place
        mine, theirs = ft.History.read(one), ft.History.read(other)
        assert mine["eval/loss"] == pytest.approx(theirs["eval/loss"])
        saved = ft.load(one / "step-00000006").train
        written = ft.load(other / "step-00000006")
        assert saved.counters.step == written.counters.step == 6
        for path, value in saved.params.items():
            torch.testing.assert_close(written.params[path], value)


def test_a_pruner_prunes_members(tmp_path: Path) -> None:
    pruner = {"name": "ThresholdPruner", "upper": 3.5}
    options: dict[str, Any] = {"pruner": pruner, "seeds": [0, 1], "trials": 8, "population": 8}
    alone = found(tmp_path / "alone", **{**options, "population": 1})
    together = found(tmp_path / "together", **options)
    require_same(alone, together)
    assert set(report.counts(together.study)) == {"complete", "pruned"}
    for mine, theirs in zip(rows(alone), rows(together), strict=True):
        assert mine.detail == theirs.detail


def test_halving_prunes_the_worse_half(tmp_path: Path) -> None:
    space = {"lr": SPACE["lr"]}
    options: dict[str, Any] = {"trials": 8, "population": 8, "halving": {"every": 1}}
    result = found(tmp_path, space=space, **options)
    assert report.counts(result.study) == {"complete": 2, "pruned": 6}  # the last one is the end
    lengths = sorted(len(one) for one in intermediate(result))
    assert lengths == [1, 1, 1, 1, 2, 2, 3, 3]
    pruned = [row for row in rows(result) if row.state == "pruned"]
    assert all("rank" in row.detail for row in pruned)
    first = [one[2] for one in intermediate(result)]
    ended = [n for n, one in enumerate(intermediate(result)) if len(one) == 1]
    assert min(first[n] for n in ended) >= max(first[n] for n in range(8) if n not in ended)


def test_a_member_that_is_not_finite_fails_as_alone(tmp_path: Path) -> None:
    space = {"lr": [1e-3, 1e-2, 1e200]}
    options: dict[str, Any] = {"trials": 3, "population": 3, "sampler": {"name": "GridSampler"}}
    options["sampler"] |= {"search_space": {"lr": [1e-3, 1e-2, 1e200]}}
    own = objective(lambda params: ft.program(net4, loss, ft.optim.SGD(params["lr"])), ["lr"])
    result = found(tmp_path, own, space, **options)
    states = {row.params["lr"]: (row.state, row.detail) for row in rows(result)}
    assert states[1e-3][0] == states[1e-2][0] == "complete"
    assert states[1e200][0] == "failed"
    assert "not finite" in states[1e200][1]


def net4() -> nn.Module:
    return net(4)


def test_trials_of_another_structure_train_alone(tmp_path: Path) -> None:
    space = {"momentum": [0.0, 0.5, 0.9]}

    def made(params: dict[str, Any]) -> ft.Program:
        return ft.program(net4, loss, ft.optim.SGD(0.01, momentum=params["momentum"]))

    sampler = {"name": "GridSampler", "search_space": space}
    own = objective(made, ["momentum"])
    result = found(tmp_path, own, space, trials=3, population=3, sampler=sampler)
    assert report.counts(result.study) == {"complete": 3}
    plain = next(row.number for row in rows(result) if row.params["momentum"] == 0.0)
    assert read_members(tmp_path, plain) is None
    others = [n for n in range(3) if n != plain]
    assert all(isinstance(read_members(tmp_path, n), Members) for n in others)


def test_trials_of_a_model_that_cannot_be_mapped_train_one_by_one(tmp_path: Path) -> None:
    class Unmapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) * self.inner[0].weight.sum().item()

    said: list[str] = []

    def made(params: dict[str, Any]) -> ft.Program:
        return ft.program(Unmapped, loss, ft.optim.SGD(params["lr"]))

    own = objective(made, ["lr"])
    result = found(tmp_path, own, {"lr": SPACE["lr"]}, trials=2, population=2, say=said.append)
    assert report.counts(result.study) == {"complete": 2}
    assert said[0].startswith("population-0000: its trials train one by one; UnsupportedError: ")
    assert "Traceback" in (tmp_path / "population-0000" / "error.txt").read_text()


def test_a_trial_whose_program_cannot_be_made_fails_alone(tmp_path: Path) -> None:
    def made(params: dict[str, Any]) -> ft.Program:
        if params["lr"] == 0.2:
            raise ValueError("no such rate")
        return make(params)

    space = {"lr": [0.1, 0.2, 0.3]}
    sampler = {"name": "GridSampler", "search_space": space}
    result = found(tmp_path, objective(made), space, trials=3, population=3, sampler=sampler)
    states = {row.params["lr"]: row.state for row in rows(result)}
    assert states == {0.1: "complete", 0.2: "failed", 0.3: "complete"}


class Interrupt:
    """Interrupt the search at an evaluation, the first time that it is reached."""

    def __init__(self, at: int) -> None:
        self.left = at

    def on_eval_end(self, event: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


RESUMED: dict[str, Any] = {
    "trials": 8,
    "population": 4,
    "seeds": [0, 1],
    "halving": {"every": 2},
    "sampler": {"name": "TPESampler", "n_startup_trials": 2},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Search:
    return found(tmp_path_factory.mktemp("whole"), **RESUMED)


@pytest.mark.sweep
@pytest.mark.parametrize("at", [5, 1, 11])
def test_an_interrupted_search_ends_in_the_same_study(
    tmp_path: Path, whole: Search, at: int
) -> None:
    own = objective(listeners=[Interrupt(at)])
    assert found(tmp_path, own, **RESUMED).reason == "interrupted"
    again = found(tmp_path, own, **RESUMED)
    assert [(row.params, row.state, row.value, row.detail) for row in rows(whole)] == [
        (row.params, row.state, row.value, row.detail) for row in rows(again)
    ]
    assert intermediate(whole) == intermediate(again)
    for number in range(8):
        mine, theirs = (
            read_trial(directory / f"trial-{number:04d}")
            for directory in (whole.directory, tmp_path)
        )
        assert {s: (one.value, one.reason, one.steps) for s, one in mine.items()} == {
            s: (one.value, one.reason, one.steps) for s, one in theirs.items()
        }


def test_rules_of_the_run_stop_members(tmp_path: Path) -> None:
    own = objective(early_stop=ft.EarlyStop("loss", upper=4.0))
    alone = found(tmp_path / "alone", own, population=1)
    together = found(tmp_path / "together", own)
    require_same(alone, together)
    assert set(report.counts(together.study)) == {"complete"}
    assert {len(one) for one in intermediate(together)} == {1, 3}


def test_the_metric_may_be_one_of_training(tmp_path: Path) -> None:
    own = objective(eval_data=None)
    options: dict[str, Any] = {"metric": "loss", "trials": 3, "say": lambda line: None}
    space = {"lr": SPACE["lr"]}
    alone = search(own, space, directory=tmp_path / "alone", **options)
    together = search(own, space, directory=tmp_path / "together", population=3, **options)
    require_same(alone, together)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"population": 0}, "population: expected a whole number of at least 1, got 0"),
        ({"population": 1, "halving": {}}, "halving ranks the trials of a population"),
        ({"halving": {"evry": 2}}, "halving.evry: unknown key .did you mean 'every'"),
        ({"halving": {"keep": 2}}, "halving: .*keep"),
        ({"own": lambda *given: None}, "expected an objective such as .*ProgramObjective"),
    ],
)
def test_mistakes_are_errors_with_the_argument(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(SearchError, match=message):
        found(tmp_path / "s", **changed)
    assert not (tmp_path / "s").exists()


def test_an_unmeasured_metric_is_an_error(tmp_path: Path) -> None:
    options: dict[str, Any] = {"direction": "minimize", "say": lambda line: None}
    with pytest.raises(SearchError, match=r"do not measure 'eval/lss'.*did you mean 'eval/loss'"):
        search(objective(), SPACE, metric="eval/lss", directory=tmp_path, population=3, **options)


def test_a_halving_rule_may_be_given(tmp_path: Path) -> None:
    result = found(tmp_path, space={"lr": SPACE["lr"]}, trials=4, halving=Halving(least=3))
    assert report.counts(result.study) == {"complete": 3, "pruned": 1}
    assert all(math.isfinite(row.value) for row in rows(result) if row.value is not None)


def test_members_may_go_on_from_others(tmp_path: Path) -> None:
    rule = PopulationBasedTraining({"lr": (1e-3, 0.2)})
    result = found(tmp_path, objective(early_stop=rule), {"lr": SPACE["lr"]}, trials=4)
    assert report.counts(result.study) == {"complete": 4}
    ended = [row for row in rows(result) if "ended with lr=" in row.detail]
    assert ended
    history = ft.History.read(tmp_path / "population-0000" / "seed-0")
    assert len(history["parent"]) == 3
