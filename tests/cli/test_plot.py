"""``functrain plot`` and ``functrain report`` as a user calls them."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from functrain.cli.entry_point import app
from functrain.errors import ConfigurationError, LogError, MissingExtraError
from functrain.metrics.log_file import encode


def write(directory: Path, steps: int, **more: float) -> Path:
    directory.mkdir(parents=True)
    lines = [encode({"step": s, "loss": 1 / s, **more}) for s in range(1, steps + 1)]
    (directory / "metrics.jsonl").write_bytes(b"".join(lines))
    return directory


def functrain(*arguments: object) -> Result:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_the_plot_of_one_run_is_in_its_directory(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = write(tmp_path / "run", 3)
    assert functrain("plot", run).stdout.strip() == str(run / "curves.png")
    assert (run / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_runs_have_short_names_and_empty_ones_are_skipped(tmp_path: Path) -> None:
    for name in ("a/run", "b/run"):
        write(tmp_path / "runs" / name, 3)
    write(tmp_path / "runs/empty", 0)
    out = tmp_path / "all.html"
    done = functrain("plot", tmp_path / "runs", "--out", out, "--metric", "loss", "--log")
    assert f"skipped {tmp_path / 'runs/empty'}: no steps" in done.stdout
    page = out.read_text()
    assert ">a</text>" in page
    assert ">b</text>" in page
    assert "skipped" in page


def test_a_damaged_log_is_drawn_up_to_the_damage(tmp_path: Path) -> None:
    run = write(tmp_path / "run", 3)
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b"}\n{}\n")
    done = functrain("plot", run, "--out", tmp_path / "a.html")
    assert "drawn up to there" in done.stdout
    assert "line 4" in done.stdout


def test_wrong_options_raise(tmp_path: Path) -> None:
    run = write(tmp_path / "run", 3)
    with pytest.raises(LogError, match=r"nowhere/metrics.jsonl has no steps"):
        functrain("plot", tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match=r"ending in .png, .svg, .pdf, .html"):
        functrain("plot", run, "--out", "curves.gif")
    with pytest.raises(ConfigurationError, match=r"no metric matches 'los'.*did you mean 'loss'"):
        functrain("plot", run, "--metric", "los")
    with pytest.raises(LogError, match="cannot be drawn over samples"):
        functrain("plot", run, "--x", "samples")
    assert [path.name for path in run.iterdir()] == ["metrics.jsonl"]


def test_without_matplotlib_plots_raise_and_a_report_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **options)

    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "functrain.plotting.figure", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(builtins, "__import__", missing)
    run = write(tmp_path / "run", 3)
    with pytest.raises(MissingExtraError, match=r"pip install 'functrain\[plot\]'"):
        functrain("plot", run)
    functrain("report", run)
    page = (run / "report.html").read_text()
    assert "no curves: this needs the package matplotlib" in page
    assert page.count("functrain[plot]") == 1


def test_report_prints_its_path(tmp_path: Path) -> None:
    run = write(tmp_path / "run", 3)
    assert functrain("report", run).stdout.strip() == str(run / "report.html")
    out = tmp_path / "page.html"
    assert functrain("report", run, "--out", out).stdout.strip() == str(out)
