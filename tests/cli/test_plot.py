"""``functrain plot`` and ``functrain report`` as a user calls them."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from functrain.metrics.log_file import encode

Run = Callable[..., Any]


def write(directory: Path, steps: int, **more: float) -> Path:
    directory.mkdir(parents=True)
    lines = [encode({"step": s, "loss": 1 / s, **more}) for s in range(1, steps + 1)]
    (directory / "metrics.jsonl").write_bytes(b"".join(lines))
    return directory


def test_the_plot_of_one_run_is_in_its_directory(functrain: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = write(tmp_path / "run", 3)
    assert functrain("plot", run).out.strip() == str(run / "curves.png")
    assert (run / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_runs_have_short_names_and_empty_ones_are_skipped(functrain: Run, tmp_path: Path) -> None:
    for name in ("a/run", "b/run"):
        write(tmp_path / "runs" / name, 3)
    write(tmp_path / "runs/empty", 0)
    out = tmp_path / "all.html"
    done = functrain("plot", tmp_path / "runs", "--out", out, "--metric", "loss", "--log")
    assert f"skipped {tmp_path / 'runs/empty'}: no steps" in done.out
    page = out.read_text()
    assert ">a</text>" in page
    assert ">b</text>" in page
    assert "skipped" in page


def test_a_damaged_log_is_drawn_up_to_the_damage(functrain: Run, tmp_path: Path) -> None:
    run = write(tmp_path / "run", 3)
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b"}\n{}\n")
    done = functrain("plot", run, "--out", tmp_path / "a.html")
    assert "drawn up to there" in done.out
    assert "line 4" in done.out


def test_wrong_options_are_refused(functrain: Run, tmp_path: Path) -> None:
    run = write(tmp_path / "run", 3)
    plot = lambda *arguments: functrain("plot", *arguments)  # noqa: E731
    assert plot(tmp_path / "nowhere").refuses("nowhere/metrics.jsonl has no steps")
    assert plot(run, "--out", "curves.gif").refuses("ending in .png, .svg, .pdf, .html")
    assert plot(run, "--metric", "los").refuses("no metric matches 'los'", "did you mean 'loss'")
    assert plot(run, "--x", "samples").refuses("cannot be drawn over samples")
    assert [path.name for path in run.iterdir()] == ["metrics.jsonl"]


def test_without_matplotlib_plots_fail_and_a_report_says_what_is_missing(
    functrain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **options)

    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("figure", "page_svg"):
        monkeypatch.delitem(sys.modules, f"functrain.plotting.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(builtins, "__import__", missing)
    run = write(tmp_path / "run", 3)
    assert functrain("plot", run).refuses("pip install 'functrain[plot]'")
    functrain("report", run)
    page = (run / "report.html").read_text()
    assert "no curves: this needs the package matplotlib" in page
    assert page.count("functrain[plot]") == 1


def test_report_prints_its_path(functrain: Run, tmp_path: Path) -> None:
    run = write(tmp_path / "run", 3)
    assert functrain("report", run).out.strip() == str(run / "report.html")
    out = tmp_path / "page.html"
    assert functrain("report", run, "--out", out).out.strip() == str(out)


def test_an_exact_name_counts_before_a_pattern(functrain: Run, tmp_path: Path) -> None:
    run = write(tmp_path / "run", 3, **{"iou[car]": 0.5, "iouc": 0.25})
    out = tmp_path / "a.html"
    assert functrain("plot", run, "--metric", "iou[car]", "--out", out).code == 0
    assert "iou[car]" in out.read_text()
    assert "iouc" not in out.read_text()
    for pattern in ("iou[[]car]", "iou?car?"):
        assert functrain("plot", run, "--metric", pattern, "--out", out).code == 0
    functrain("plot", run, "--metric", "iou[dog]", "--out", out).refuses("no metric matches")


def test_a_path_is_not_empty_and_may_begin_with_the_home_directory(
    functrain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "run", 3)
    assert functrain("plot", "~/run", "--out=~/a.html").code == 0
    assert (tmp_path / "a.html").exists()
    assert not (tmp_path / "~").exists()
    for arguments in (("plot", "run", "--out="), ("init", ""), ("prune", "", "--keep-last", "1")):
        done = functrain(*arguments)
        assert done.code == 2
        assert "expected a path" in done.err
