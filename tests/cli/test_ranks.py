"""``functrain train`` on several processes of a real torchrun."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import rank_runs
import ranks

OPTIONS = ["program.parts=4", "fit.until=6 steps", "fit.save_every=3 steps", "threads=1"]


def alone(directory: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "functrain", "train", "digits", *OPTIONS, *more]
    return subprocess.run(
        [*command, f"directory={directory}"], capture_output=True, text=True, timeout=120
    )


@pytest.mark.row(57)
def test_torchrun_ends_in_the_bytes_of_one_process(tmp_path: Path) -> None:
    one = alone(tmp_path / "one")
    assert one.returncode == 0, one.stderr
    run = ["train", "digits", *OPTIONS, "placement.shard=all", f"directory={tmp_path / 'two'}"]
    two = ranks.torchrun(2, "functrain", *run, options=["--max-restarts=1", "-m"])
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("run directory:") == 1
    assert rank_runs.files(tmp_path / "two") == rank_runs.files(tmp_path / "one")
    longer = alone(tmp_path / "two", "fit.until=8 steps", "fit.schedule_end=keep")
    assert longer.returncode == 0, longer.stderr


def test_a_configuration_without_parts_is_refused(tmp_path: Path) -> None:
    options = ["train", "digits", f"directory={tmp_path / 'run'}"]
    done = ranks.torchrun(2, "functrain", *options, options=["-m"])
    assert done.returncode != 0
    assert "program.parts=" in done.stderr
    assert not (tmp_path / "run").exists()
