"""Configurations translated from five systems train for a few steps."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from functrain.cli.train import train

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"
QUICK = {
    "jiant": ["fit.until=4 steps", "fit.eval_every=2 steps"],
    "template": ["fit.until=1 epoch", "seeds=[89, 231]", "listeners.wandb=null"],
    "qpipeline": ["fit.until=6 steps", "schedule.steps=3", "fit.eval_every=2 steps"],
    "ml_odyssey": ["fit.until=[1 epoch, 10 minutes]"],
    "craft": ["fit.until=2 steps", "optimizer=radam", "callbacks=[samples, early_stopping]"],
}


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(CONFIGS, tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("functrain.cli.train._plot", lambda *_: None)  # shorter
    return tmp_path / "configs"


def run(source: Path, *overrides: str) -> str:
    console = Console(file=io.StringIO(), width=100)
    assert train(str(source), list(overrides), console) == 0
    return console.file.getvalue()  # type: ignore[attr-defined]


def rows(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.row(46)
@pytest.mark.slow
class TestTranslated:
    def test_there_is_one_of_each_system(self) -> None:
        whole = {path.stem for path in CONFIGS.glob("*.yaml")}
        assert whole == {*QUICK, "template_search"}

    def test_jiant(self, configs: Path) -> None:
        run(configs / "jiant.yaml", *QUICK["jiant"])
        found = rows(Path("runs/jiant"))
        assert [row["step"] for row in found if "mnli/accuracy" in row] == [2, 4]
        assert "rte/loss" in found[-1]

    def test_template(self, configs: Path) -> None:
        said = run(configs / "template.yaml", *QUICK["template"])
        assert "val/loss" in said
        assert "±" in said
        assert [row["step"] for row in rows(Path("runs/FluxNet/seed-231"))] == [*range(1, 9)]
        assert Path("runs/FluxNet/seed-89/metrics.csv").exists()

    def test_qpipeline(self, configs: Path) -> None:
        run(configs / "qpipeline.yaml", *QUICK["qpipeline"])
        found = rows(Path("runs/qpipeline"))
        assert [row["step"] for row in found if "eval/ema/loss" in row] == [2, 4, 6]
        # Warmup of W=3 updates from a tenth: base * (f + (1 - f) k / W).
        assert [row["lr"] for row in found[:4]] == pytest.approx([5e-4, 2e-3, 3.5e-3, 5e-3])
        assert list(Path("runs/qpipeline/profile").iterdir())

    def test_ml_odyssey(self, configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run(configs / "ml_odyssey.yaml", *QUICK["ml_odyssey"])
        assert rows(Path("runs/ml_odyssey"))[-1]["epoch/loss"] > 0
        assert "step 8" in capsys.readouterr().out

    def test_craft(self, configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = run(configs / "craft.yaml", *QUICK["craft"])
        assert rows(Path("runs/craft"))[-1]["step"] == 2
        assert "The " in said
        assert not Path("runs/craft/tensorboard").exists()

    def test_the_search(self, configs: Path) -> None:
        pytest.importorskip("optuna")
        from functrain import config
        from functrain.config import load_search

        search = load_search(str(configs / "template_search.yaml"))
        assert set(search.space) == {"model.width", "schedule.lr", "schedule.infimum_lr"}
        loaded = config.load(search.base, [*search.overrides, "model.width=8"])
        assert (loaded.config.seeds, loaded.config.model["width"]) == (None, 8)
