"""The benchmarks run, and their tables have rows; nothing is timed here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WAYS = ("functrain", "functrain, background", "torch.save + fsync", "safetensors", "torch DCP")
LOADS = ("functrain, verified", "torch.load", "safetensors, cloned", "memcpy into fresh memory")


@pytest.mark.slow
def test_the_benchmark_of_checkpoints_has_a_row_for_every_way_and_aim(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.checkpoints", "--quick", "--size", "1"]
    run = subprocess.run(
        [*command, "--directory", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
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
