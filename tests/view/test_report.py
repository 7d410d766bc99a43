"""The report of a run shows everything there is, and names everything missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pages import Page
from torch import nn

import functrain as ft
from functrain.errors import RecipeChangedWarning, RunDirectoryError
from functrain.metrics.log_file import encode
from functrain.view import report

pytest.importorskip("matplotlib")


def page_of(path: Path) -> tuple[str, list[str]]:
    """Return the text of a page, with a line for each piece between tags, and its tags."""
    page = Page(path.read_text("utf-8"))
    return "\n".join([*page.texts, ""]), page.tags


DATA = [(torch.ones(4, 2), torch.ones(4, 1)), (torch.zeros(4, 2), torch.ones(4, 1))]


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    x, y = batch
    return (model(x) - y).square().mean()


def train(directory: Path, until: str = "4 steps", **options: Any) -> ft.Run:
    program = ft.program(nn.Linear(2, 1), loss, ft.optim.AdamW(lr=0.1), nonfinite="skip")
    options = {"eval_data": DATA, "save_every": "2 steps", "eval_every": "2 steps", **options}
    return ft.fit(program, DATA, until=until, directory=directory, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "first"
    train(ft.Checkpoints(directory, keep_last=3, monitor="eval/loss"))  # type: ignore[arg-type]
    config = {"name": "the first", "fit": {"until": "4 steps"}, "seed": 17}
    config["checkpoints"] = {"monitor": "eval/loss", "mode": "min"}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    return directory


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_the_report_of_a_finished_run_is_complete(run: Path) -> None:
    before = {path.name for path in run.iterdir()}
    path = report(run)
    assert path == run / "report.html"
    assert {each.name for each in run.iterdir()} == before | {"report.html"}
    text, tags = page_of(path)
    assert "the first\nfinished\n: reached 4 steps" in text
    for word in (
        *("AdamW", "weight_decay", "fit.until", "eval/loss", "learning rate", "best eval/loss"),
        *(str(torch.__version__), "17", "best\n"),
        *("samples", "time trained", "saved (UTC)", "KiB", "metric", "Environment"),
    ):
        assert word in text, word
    assert "Notices" not in text
    assert tags.count("figure") == 3


def remove_checkpoints(run: Path) -> None:
    for path in run.glob("step-*"):
        shutil.rmtree(path)


def damage_newest(run: Path) -> None:
    (run / "step-00000004" / "manifest.json").write_bytes(b"{}")


def longer(run: Path) -> None:
    (run / "config.yaml").write_text("fit: {until: [9 steps, 1 hour]}")


def log_on(run: Path) -> None:
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(encode({"step": 5, "loss": float("nan")}))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda run: (run / "metrics.jsonl").unlink(), "metrics.jsonl cannot be read"),
        (lambda run: (run / "metrics.jsonl").write_bytes(b""), "the log has no steps"),
        (lambda run: (run / "metrics.jsonl").write_bytes(b'{"step":1}\nx\n'), "damaged in line 2"),
        (lambda run: (run / "config.yaml").unlink(), "there is no config.yaml"),
        (lambda run: (run / "config.yaml").write_bytes(b"\xff: ["), "config.yaml cannot be read"),
        (lambda run: (run / "config.yaml").write_text("fit: 3"), "its planned length is unknown"),
        (
            lambda run: (run / "config.yaml").write_text("fit: {until: soon}"),
            "planned length: soon",
        ),
        (longer, "not finished\n: saved at step 4; planned length: 9 steps or 1 hour"),
        (remove_checkpoints, "not saved\n: there is no checkpoint that can be read"),
        (damage_newest, "step-00000004 cannot be read"),
        (log_on, "goes on to step 5, the newest checkpoint is of step 4"),
        (log_on, "loss was NaN or infinite once, first at step 5"),
        (lambda run: (run / "set-aside-from-6-to-8").mkdir(), "set-aside-from-6-to-8 holds"),
    ],
)
def test_the_report_names_everything_missing_or_damaged(
    harm: Callable[[Path], object], said: str, run: Path
) -> None:
    harm(run)
    assert said in page_of(report(run))[0]


def test_the_report_names_a_damaged_payload(run: Path) -> None:
    for path in (run / "step-00000004").glob("*.safetensors"):
        path.write_bytes(bytes(path.stat().st_size))
    assert "step-00000004 is damaged" in page_of(report(run))[0]


def test_the_report_counts_skipped_updates_and_names_the_parent(run: Path, tmp_path: Path) -> None:
    bad = [DATA[0], (torch.full((4, 2), torch.nan), torch.ones(4, 1))]
    program = ft.program(nn.Linear(2, 1), loss, ft.optim.AdamW(lr=0.1), nonfinite="skip")
    parent, fork = run / "step-00000002", tmp_path / "fork"
    with pytest.warns(RecipeChangedWarning, match=r"data\.contents"):
        forked = ft.fit(
            program, bad, until="9 steps", directory=fork, resume=parent, eval_data=DATA
        )
    text, _ = page_of(report(fork))
    assert f"forked from {parent}" in text
    skipped = int(forked.state.counters.skipped)
    assert f"because of NaN or infinity: {skipped}\n" in text


def test_the_status_names_an_early_stop(tmp_path: Path) -> None:
    train(tmp_path / "run", "40 steps", early_stop=ft.EarlyStop("eval/loss", upper=-1.0))
    assert "stopped early" in page_of(report(tmp_path / "run"))[0]


ATTACK = "</script><script>document.title='taken'</script>"


def test_names_and_values_are_never_markup(run: Path) -> None:
    plain = set(page_of(report(run))[1])
    config = {"name": ATTACK, ATTACK: {"until": ATTACK}, "fit": {"until": ATTACK}}
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "checkpoints": {"monitor": ATTACK}}))
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(encode({"step": 5, ATTACK: 1.0, f"eval/{ATTACK}": float("nan")}))
    (run / f"set-aside-{ATTACK.replace('/', '')}").mkdir()
    text, tags = page_of(report(run))
    assert set(tags) <= plain | {"ul", "li", "title", "g"}
    assert "script" not in tags
    assert text.count(ATTACK) >= 6


def test_a_directory_without_a_run_raises(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"there is no run in .*nowhere"):
        report(tmp_path / "nowhere")
    with pytest.raises(RunDirectoryError, match=r"no log, no checkpoint, no config.yaml"):
        report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_out_chooses_the_path(run: Path, tmp_path: Path) -> None:
    assert report(str(run), str(tmp_path / "page.html")) == tmp_path / "page.html"
    assert not (run / "report.html").exists()
