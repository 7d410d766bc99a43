"""The scripts that repeat experiments and published results run on small sizes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def output(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.slow
def test_the_table_of_mnist_1d_equals_a_plain_loop() -> None:
    pytest.importorskip("mnist1d")
    options = ["--steps", "5", "--seeds", "1", "2", "--models", "CNN", "GRU", "--plain"]
    _, *models = rows(output("benchmarks/mnist_1d.py", *options))
    assert [row[0] for row in models] == ["CNN", "GRU"]
    assert [row[-1] for row in models] == ["yes", "yes"]


@pytest.mark.long
@pytest.mark.slow
def test_the_experiments_tell_an_exact_resumption_from_another() -> None:
    options = ["--only", "functrain", "PyTorch", "--tasks", "dropout", "NumPy"]
    table = output("-m", "benchmarks.proof", "resume", *options)
    heads, *tasks, total = rows(table)
    assert [head.partition(" ")[0] for head in heads[1:]] == ["functrain", "PyTorch", "PyTorch"]
    assert [task[0] for task in tasks] == ["dropout", "augmentation with NumPy"]
    assert total[1:] == ["2 of 2", "0 of 2", "2 of 2"]


@pytest.mark.long
@pytest.mark.slow
def test_a_flipped_bit_never_changes_a_run_silently() -> None:
    table = output("-m", "benchmarks.proof", "damage", "--count", "6", "--only", "functrain")
    _, (_, same, failed, other) = rows(table)
    assert (int(same) + int(failed), other) == (6, "0")


@pytest.mark.long
@pytest.mark.slow
def test_a_power_cut_loses_nothing_that_was_synced() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    options = ["--count", "8", "--only", "functrain", "tutorial"]
    _, (_, *ours), (_, *theirs) = rows(output("-m", "benchmarks.proof", "power", *options))
    assert [int(count) for count in ours] == [4, 4, 0, 0, 0]
    assert int(theirs[3]) > 0  # torch.save syncs nothing: the only checkpoint may be cut off


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_end_in_the_bytes_of_one() -> None:
    options = ["--only", "functrain", "tutorial"]
    _, (_, *ours), (_, *theirs) = rows(output("-m", "benchmarks.proof", "world", *options))
    assert ours == ["same bytes"] * 4
    assert all(cell.endswith(" apart") for cell in theirs)
