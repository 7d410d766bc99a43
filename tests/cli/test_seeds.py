"""Several seeds of one configuration: a run for each, complete ones are skipped, mean ± std."""

from __future__ import annotations

import io
import json
import math
import statistics
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

import functrain as ft
from functrain.checkpoint import weights
from functrain.cli import seeds
from functrain.cli.train import _plot as plot
from functrain.cli.train import train
from functrain.errors import RunChangedError, RunDirectoryError

RUN = """\
model: {_target_: torch.nn.Linear, in_features: 2, out_features: 1}
loss: seeded.loss
data: {_target_: seeded.data, seed: "${seed}"}
eval_data: {_target_: seeded.data}
optimizer: {_target_: functrain.optim.SGD, lr: 0.1}
fit: {until: 3 steps}
"""
MODULE = """\
import torch
import functrain as ft
def loss(model, batch):
    return model(batch).square().mean()
def data(seed=0):
    points = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    return ft.data.Batches(points, 4, seed=seed)
"""
pytestmark = pytest.mark.row(46)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "seeded.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("functrain.cli.train._plot", lambda *_: None)  # for time
    return tmp_path


def run(*overrides: str, source: str = "run.yaml", code: int = 0) -> str:
    console = Console(file=io.StringIO(), width=100)
    assert train(source, list(overrides), console) == code
    return console.file.getvalue()  # type: ignore[attr-defined]


def manifest(directory: str = "runs/run") -> dict[str, dict[str, object]]:
    return json.loads((Path(directory) / "seeds.json").read_text())


class TestRuns:
    def test_each_seed_equals_a_run_of_that_seed_alone(self) -> None:
        run("seeds=[0, 3]")
        run("seed=3", "directory=alone")
        several, alone = weights("runs/run/seed-3"), weights("alone")
        assert all(torch.equal(several[name], alone[name]) for name in alone)
        written = yaml.safe_load(Path("runs/run/seed-3/config.yaml").read_text())
        assert (written["seed"], written["data"]["seed"]) == (3, 3)

    def test_mean_and_standard_deviation(self) -> None:
        said = run("seeds=[0, 1, 2]")
        found = manifest()
        losses = [found["seeds"][str(seed)]["metrics"]["eval/loss"] for seed in (0, 1, 2)]
        told = found["summary"]["eval/loss"]
        assert told["mean"] == statistics.fmean(losses)
        assert told["std"] == statistics.stdev(losses)
        assert f"{told['mean']:.4g} ± {told['std']:.4g}" in said

    def test_complete_seeds_are_skipped_and_seeds_may_be_added(self) -> None:
        run("seeds=[0, 1]")
        before = Path("runs/run/seed-0/config.yaml").stat().st_mtime_ns
        said = run("seeds=[0, 1, 2]")
        assert "seed 0: done before" in said
        assert "seed 2: done before" not in said
        assert Path("runs/run/seed-0/config.yaml").stat().st_mtime_ns == before
        assert list(manifest()["seeds"]) == ["0", "1", "2"]

    def test_a_later_end_continues_all(self) -> None:
        run("seeds=[0, 1]")
        assert "done before" not in run("seeds=[0, 1]", "fit.until=5 steps")
        assert {each["step"] for each in manifest()["seeds"].values()} == {5}

    def test_a_removed_run_is_trained_again(self) -> None:
        import shutil

        run("seeds=[0, 1]")
        shutil.rmtree("runs/run/seed-1")
        said = run("seeds=[0, 1]")
        assert "seed 0: done before" in said
        assert "seed 1: done before" not in said

    def test_the_file_in_the_directory_gives_the_same_runs(self) -> None:
        run("seeds=[0, 1]", "optimizer.lr=0.05")
        run("directory=again", source="runs/run/config.yaml")
        for seed in (0, 1):
            first, second = weights(f"runs/run/seed-{seed}"), weights(f"again/seed-{seed}")
            assert all(torch.equal(first[name], second[name]) for name in first)
        assert "seed 1: done before" in run(source="runs/run/config.yaml")

    def test_another_configuration_is_refused(self) -> None:
        run("seeds=[0, 1]")
        with pytest.raises(RunChangedError, match=r"optimizer.lr: 0.1 there, 0.2 now"):
            run("seeds=[0, 1]", "optimizer.lr=0.2")


@pytest.mark.filterwarnings("ignore::functrain.errors.FunctrainWarning")
@pytest.mark.parametrize("several", [[], ["seeds=[0, 1]"]], ids=["one", "several"])
@pytest.mark.parametrize(
    "changed",
    [
        ["fit.until=4 steps"],
        ["checkpoints.monitor=epoch/loss"],
        ["early_stop={_target_: functrain.EarlyStop, patience: 9}"],
        ["name=other", "threads=1"],
    ],
)
def test_a_call_that_trains_nothing_changes_nothing(
    several: list[str], changed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A plot is drawn, in words.
    monkeypatch.setattr("functrain.plotting.curves", lambda _, path, title: path.write_text(title))
    monkeypatch.setattr("functrain.cli.train._plot", plot)
    call = [*several, "directory=run", "fit.until=8 steps"]
    run(*call)
    before = written(Path("run"))
    assert {"config.yaml"} <= {path.name for path in before}
    run(*call, *changed)
    assert written(Path("run")) == before
    run(*call, "fit.until=12 steps")
    assert "until: 12 steps" in Path("run/config.yaml").read_text()


def written(directory: Path) -> dict[Path, tuple[int, bytes]]:
    files = [path for path in directory.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


class TestBadEnds:
    @pytest.mark.filterwarnings("ignore:the run ends:functrain.errors.NonFiniteWarning")
    def test_a_nonfinite_loss_is_excluded_and_reported(self) -> None:
        options = ["seeds=[0, 1]", "optimizer.lr=1e30"]
        for _ in range(2):  # never complete
            said = run(*options, code=3)
            assert "nonfinite at step" in said
            assert "done before" not in said
        assert manifest()["summary"] == {}

    def test_a_damaged_manifest(self) -> None:
        run("seeds=[0]")
        Path("runs/run/seeds.json").write_text("{")
        with pytest.raises(RunDirectoryError, match=r"seeds.json is damaged .* Remove it"):
            run("seeds=[0]")
        Path("runs/run/seeds.json").unlink()
        assert "nothing to train" in run("seeds=[0]")


def test_spread_is_over_finite_values() -> None:
    assert seeds.spread([1.0, math.nan, 3.0])["mean"] == 2.0
    assert seeds.spread([math.inf])["runs"] == 0
    assert math.isnan(seeds.spread([1.0])["std"])


def test_metrics_of_a_run_without_evaluation() -> None:
    loss = lambda model, batch: model(batch).square().mean()  # noqa: E731
    program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
    ended = ft.fit(program, [torch.ones(4, 2)], until="1 step")
    assert seeds.last_metrics(ended) == {"loss": ended.history["loss"][0]}
