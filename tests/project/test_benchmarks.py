"""The benchmarks run and their tables have rows; the figures are not checked."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import processes
import pytest

from benchmarks.steps import budgets, guard
from benchmarks.steps.contenders import CONTENDERS
from benchmarks.steps.measuring import Extent, Figures, Results, measure
from benchmarks.steps.work import MLP

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


OVER = made_up(pure=1.4, donated=1.1)
NOT_RUN = attrs.evolve(made_up(), failures={"donated": "ConfigurationError: not so"})


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (made_up(pure=1.2, donated=1.1), []),
        (OVER, ["mlp: pure takes 1.400 of the plain loop, its budget is 1.30"]),
        (NOT_RUN, ["mlp: donated could not be run: ConfigurationError: not so"]),
    ],
)
def test_a_step_over_its_budget_is_an_offence(results: Results, expected: list[str]) -> None:
    ratios = {"donated": 1.15} if results is NOT_RUN else {"pure": 1.3, "donated": 1.15}
    assert [str(each) for each in budgets.offences(results, ratios)] == expected


def test_losses_that_agree_may_be_timed() -> None:
    guard.check([2.0, 1.9, 1.8], {"pure": [2.0, 1.9, 1.8017], "jax": [1.9981, 1.9, 1.8]})


@pytest.mark.parametrize("other", [[2.0, 1.9, 1.803], [2.0, 1.9, float("nan")]])
def test_different_losses_are_refused_and_named(other: list[float]) -> None:
    with pytest.raises(guard.DifferentWorkError, match=r"jax: 2\.000000, 1\.900000") as caught:
        guard.check([2.0, 1.9, 1.8], {"pure": [2.0, 1.9, 1.8], "jax": other})
    assert "pure" not in str(caught.value)


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
