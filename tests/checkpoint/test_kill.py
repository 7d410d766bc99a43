"""Row 35: killed anywhere, an older or the newer checkpoint loads; real processes, SIGKILL."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import processes
import pytest
import torch

from functrain.checkpoint import Checkpoints, load

WRITER = """
import sys, torch
from functrain.checkpoint import Checkpoints, save
store = Checkpoints(sys.argv[1], keep_last=2, keep_best=1)
step = int(sys.argv[2])
print("ready", flush=True)
while True:
    step += 1
    tree = {"params": {str(i): torch.full((500,), float(step)) for i in range(20)}, "step": step}
    store.save(tree, step=step, metrics={"loss": 1 / step})
    print("step", step, flush=True)
    save(sys.argv[1] + "/same", tree, overwrite=True)
    print("same", step, flush=True)
"""


def killed_writer(directory: Path, step: int, lines: int, seconds: float) -> dict[str, int]:
    """Return the steps that a writer reported as saved before it was killed.

    It is killed a moment after a number of lines, so that it gets on however busy the machine is.
    """
    writer = processes.Child("-c", WRITER, str(directory), str(step))
    writer.wait_for_lines(1 + lines)
    time.sleep(seconds)
    writer.kill()
    assert writer.wait() == -signal.SIGKILL, writer.errors.read_text()
    ready, *said = writer.wait_for_lines(0)
    assert ready == "ready\n"
    return {name: int(number) for name, number in map(str.split, said)}


@pytest.mark.slow
@pytest.mark.row(35)
@pytest.mark.parametrize("kills", [5, pytest.param(30, marks=pytest.mark.long)])
def test_sigkill_at_random_times(kills: int, tmp_path: Path) -> None:
    directory, last, same = tmp_path / "run", 0, 0
    chance = random.Random(kills)
    for _ in range(kills):
        said = killed_writer(directory, last, chance.randrange(5), chance.uniform(0.0, 0.02))
        tree: Any = {"step": 0, "params": {}}
        if said or last:
            tree = Checkpoints(directory).restore()[0]
        assert tree["step"] in range(max(last, said.get("step", 0)), said.get("step", last) + 2)
        assert all((value == tree["step"]).all() for value in tree["params"].values())
        same = max(same, said.get("same", 0))
        if same:
            again = load(directory / "same")
            assert again["step"] >= same
            assert torch.equal(again["params"]["3"], torch.full((500,), float(again["step"])))
        last = tree["step"]
    store = Checkpoints(directory)
    with store.lock():
        pass
    assert [name for name in os.listdir(directory) if name.startswith(".step")] == []
    assert last >= kills // 2
