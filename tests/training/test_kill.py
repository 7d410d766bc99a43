"""Real runs, killed without warning at random moments, end in the bytes of a run never killed."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import processes
import pytest

import functrain as ft
from functrain import tree
from functrain.training.resume import TYPES

# Every option is an ordinary override of the example's configuration.
RUNS = {
    "digits": ["fit.until=300 steps", "fit.eval_every=20 steps", "fit.save_every=7 steps"],
    "chargpt": [
        "model.width=16",
        "model.layers=1",
        "fit.until=60 steps",
        "fit.eval_every=20 steps",
        "fit.save_every=6 steps",
    ],
}
KILLS = 4
# How the killed run differs; the one it is compared with always waits for its checkpoints.
KILLED = "listeners=[{_target_: killed_soon.KilledSoon}]"
DISTURBED = {"digits": ["checkpoints.background=true", KILLED], "chargpt": [KILLED]}


def command(name: str, directory: Path) -> list[str]:
    more = DISTURBED[name] if directory.name == "disturbed" else []
    options = [*RUNS[name], *more, f"directory={directory}", "threads=1"]
    return ["-m", "functrain", "train", name, *options]


def finish(name: str, directory: Path) -> None:
    done = processes.run(*command(name, directory))
    assert done.returncode == 0, done.stdout + done.stderr


def killed(name: str, directory: Path, step: int, delay: float) -> bool:
    """Run until it is killed a while after a step, or to its end; return whether it was killed."""
    done = processes.run(*command(name, directory), env={**os.environ, "KILL": f"{step} {delay}"})
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.mark.slow
@pytest.mark.row(32)
@pytest.mark.row(34)
@pytest.mark.sweep
@pytest.mark.parametrize("name", ["chargpt", "digits"])
def test_killed_runs_end_in_the_same_bytes(name: str, tmp_path: Path) -> None:
    generator = random.Random(0)
    straight, disturbed = tmp_path / "straight", tmp_path / "disturbed"
    finish(name, straight)
    kills = sum(
        killed(name, disturbed, generator.randint(1, 12), generator.uniform(0, 0.02))
        for _ in range(KILLS)
    )
    finish(name, disturbed)
    assert kills == KILLS
    logs = [(run / "metrics.jsonl").read_bytes() for run in (straight, disturbed)]
    assert logs[0] == logs[1]
    trees = [ft.Checkpoints(run).restore("latest", types=TYPES)[0] for run in (straight, disturbed)]
    assert tree.diff(*trees) == []
