"""The benchmarks run and their tables have rows; the figures are not checked."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import processes
import pytest

from benchmarks.steps import budgets, guard, machine, reporting
from benchmarks.steps.__main__ import main
from benchmarks.steps.contenders import CONTENDERS
from benchmarks.steps.measuring import Extent, Figures, Results, measure
from benchmarks.steps.work import MLP, WORKS

ROOT = Path(__file__).parents[2]
WAYS = ("functrain", "functrain, background", "torch.save + fsync", "safetensors", "torch DCP")
LOADS = ("functrain, verified", "torch.load", "safetensors, cloned", "memcpy into fresh memory")


@pytest.mark.long
@pytest.mark.slow
def test_the_benchmark_of_checkpoints_has_a_row_for_every_contender_and_aim(tmp_path: Path) -> None:
    command = ["-m", "benchmarks.checkpoints", "--quick", "--size", "1"]
    run = processes.run(*command, "--directory", str(tmp_path), cwd=ROOT)
    assert run.returncode == 0, run.stderr
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in run.stdout.splitlines()
        if line.startswith("|")
    ]
    names = [row[0] for row in rows]
    for name in (*WAYS, *LOADS):
        assert names.count(name) == 2, name  # one for each tree
    assert sum(row[-1] in ("met", "NOT MET") for row in rows) == 7
    ratio = re.compile(r"\d+\.\d\d")
    assert all(ratio.fullmatch(row[-1]) for row in rows if row[0] in (*WAYS, *LOADS))
    assert list(tmp_path.iterdir()) == []


def made_up(**ratios: float) -> Results:
    """Figures of the small MLP with a plain step of 100 us and a median of 150 us."""
    figures = {
        name: Figures([2e-4 * ratio, 1e-4 * ratio], [2.0, 1.9, 1.8], 0.5)
        for name, ratio in {"plain": 1.0, **ratios}.items()
    }
    return Results(MLP, 1, figures)


def test_a_step_within_its_budget_passes() -> None:
    assert budgets.offences(made_up(pure=1.2, donated=1.1), {"pure": 1.3, "donated": 1.1}) == []


def test_a_step_over_its_budget_is_named_with_both_ratios() -> None:
    (offence,) = budgets.offences(made_up(pure=1.4, donated=1.1), {"pure": 1.3, "donated": 1.15})
    assert str(offence) == "mlp: pure takes 1.400 of the plain loop, its budget is 1.30"


def test_a_step_with_a_budget_that_cannot_be_run_is_an_offence() -> None:
    results = attrs.evolve(made_up(), failures={"donated": "ConfigurationError: not so"})
    (offence,) = budgets.offences(results, {"donated": 1.15})
    assert str(offence) == "mlp: donated could not be run: ConfigurationError: not so"


def test_every_budget_names_a_work_and_a_contender() -> None:
    for work, ratios in budgets.BUDGETS.items():
        assert work in WORKS
        assert all(CONTENDERS[name].takes(work) for name in ratios)


def test_losses_that_agree_may_be_timed() -> None:
    guard.check([2.0, 1.9, 1.8], {"pure": [2.0, 1.9, 1.8017], "jax": [1.9981, 1.9, 1.8]})


@pytest.mark.parametrize("other", [[2.0, 1.9, 1.803], [2.0, 1.9, float("nan")]])
def test_different_losses_are_refused_and_named(other: list[float]) -> None:
    with pytest.raises(guard.DifferentWorkError, match=r"jax: 2\.000000, 1\.900000") as caught:
        guard.check([2.0, 1.9, 1.8], {"pure": [2.0, 1.9, 1.8], "jax": other})
    assert "pure" not in str(caught.value)


def test_the_report_has_ratios_failures_and_the_overhead_of_fit(tmp_path: Path) -> None:
    results = made_up(pure=1.25, donated=1.1, fit=1.3)
    results.failures["lightning"] = "ImportError: no | here"
    command = "python -m benchmarks.steps"
    reporting.write(tmp_path / "r.md", [results], machine.describe(), command, "r.png")
    text = (tmp_path / "r.md").read_text()
    assert "## small MLP, 1 thread" in text
    assert "| functrain | 125 | 1.25 | 1.25 |" in text
    assert "| Lightning Trainer | failed: ImportError: no / here |" in text
    assert "fit adds 20 us to a donated step" in text
    assert f"`{command}`" in text
    assert "(r.png)" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {len(reporting.HEADER) + 1}


def test_the_picture_has_a_panel_for_each_work(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.steps import plotting

    plotting.draw([made_up(pure=1.25, lightning=9.0)] * 3, tmp_path / "r.png")
    assert (tmp_path / "r.png").stat().st_size > 10_000


def test_missing_peers_are_skipped_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = attrs.evolve(CONTENDERS["ignite"], needs=("no_such_package",))
    monkeypatch.setitem(CONTENDERS, "ignite", absent)
    monkeypatch.setattr("benchmarks.steps.__main__.measure", lambda work, given, *_: made_up())
    assert main(["--work", "mlp", "--only", "ignite", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "Ignite is skipped: no_such_package is not installed" in shown
    assert "small MLP, 1 thread" in shown


def test_the_gpu_profile_says_that_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="needs an NVIDIA GPU"):
        main(["--profile", "gpu"])


@pytest.mark.slow
@pytest.mark.long
def test_plain_and_pure_steps_are_measured_in_workers_and_a_failure_does_not_stop_them() -> None:
    broken = attrs.evolve(CONTENDERS["fit"], name="no such contender")
    contenders = [CONTENDERS["plain"], broken, CONTENDERS["pure"]]
    said: list[str] = []
    results = measure(MLP, contenders, Extent(repeats=2, cold=False), 1, said.append)
    assert said
    assert list(results.figures) == ["plain", "pure"]
    assert results.failures == {"no such contender": "KeyError: 'no such contender'"}
    for figures in results.figures.values():
        assert len(figures.seconds) == 2
        assert min(figures.seconds) > 0
        assert figures.losses[0] > figures.losses[1] > figures.losses[2]
        assert figures.peak
        assert figures.allocated
    pure, plain = results.figures["pure"], results.figures["plain"]
    assert pure.losses == plain.losses
    assert (pure.allocated or 0) > (plain.allocated or 0)  # the new state
