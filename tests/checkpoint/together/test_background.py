"""Ranks save together in the background, and an error of one rank is raised on all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import placed_states
import pytest
import ranks
import torch
import torch.distributed as dist
from crashes.faults import failing_always

from functrain import tree
from functrain.checkpoint import Checkpoints, Saver
from functrain.distributed import current
from functrain.errors import CheckpointWriteError


def train(directory: Path, options: dict[str, Any]) -> list[int]:
    """Exchange tensors of a step while checkpoints are written."""
    world, total = current(), torch.zeros(1000)
    with Saver(Checkpoints(directory), **options) as saver:
        for step in range(1, 6):
            saver.save(placed_states.placed(world, step), step=step, metrics={"loss": 1 / step})
            for _ in range(20):
                part = torch.full((1000,), float(world.rank))
                dist.all_reduce(part)
                total += part
    assert torch.equal(total, torch.full((1000,), 100.0 * sum(range(world.size))))
    return Checkpoints(directory).steps()


@pytest.mark.parametrize("options", [{}, {"staged": True}, {"inline": True}])
def test_steps_go_on_while_ranks_save(tmp_path: Path, options: dict[str, Any]) -> None:
    assert ranks.run(train, 3, tmp_path / "run", options) == [[1, 2, 3, 4, 5]] * 3
    store = Checkpoints(tmp_path / "run")
    for step in store.steps():
        store.verify(step)
        assert tree.equal(store.restore(step)[0], placed_states.whole(step))


def fail_once(directory: Path) -> list[Any]:
    """Save with a full disk on rank 0, which writes, then without."""
    world, store = current(), Checkpoints(directory)
    saver, told = Saver(store), []
    with pytest.MonkeyPatch.context() as patch:
        if world.rank == 0:
            failing_always(patch, os, "posix_fallocate", errno.ENOSPC)
        saver.save(placed_states.placed(world, 1), step=1)
        try:
            saver.wait()
        except CheckpointWriteError as error:
            told = [error.errno, str(error)]
    steps = store.steps()
    world.barrier()
    saver.save(placed_states.placed(world, 2), step=2)
    return [told, steps, saver.close()]


def test_a_full_disk(tmp_path: Path) -> None:
    for told, steps, path in ranks.run(fail_once, 2, tmp_path / "run"):
        assert told[0] == errno.ENOSPC
        assert steps == []
        assert path == tmp_path / "run" / "step-00000002"
    assert [name for name in os.listdir(tmp_path / "run") if name.startswith(".step")] == []


def fail_first(directory: Path) -> str:
    """Fail on rank 0 in the callback that runs before anything is written."""
    world = current()

    def refuse() -> None:
        raise OSError(errno.EIO, "the log is gone")

    saver = Saver(Checkpoints(directory), world=world)
    saver.save({"w": torch.ones(3)}, step=1, first=refuse if world.rank == 0 else None)
    with pytest.raises(CheckpointWriteError) as caught:
        saver.close()
    return str(caught.value)


def test_an_error_before_anything_is_written(tmp_path: Path) -> None:
    texts = ranks.run(fail_first, 2, tmp_path / "run")
    assert all("the log is gone" in text for text in texts)
    assert not (tmp_path / "run").exists()


SCRIPT = """
import sys, torch, placed_states
from functrain.checkpoint import Checkpoints, Saver
from functrain.distributed import current
saver = Saver(Checkpoints(sys.argv[1]))
saver.save({"w": placed_states.rows(current(), torch.ones(2_000_000, 8))}, step=1)
"""


@pytest.mark.long
def test_the_end_of_the_processes_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", str(Path(placed_states.__file__).parent))
    ended = ranks.torchrun(2, script, str(tmp_path / "run"))
    assert ended.returncode == 0, ended.stderr
    assert Checkpoints(tmp_path / "run").steps() == [1], ended.stderr
    Checkpoints(tmp_path / "run").verify(1)


def save_copies(directory: Path) -> None:
    """Save plain tensors together; only rank 0 has more."""
    world = current()
    state: dict[str, Any] = {"params": placed_states.leaves(), "big": torch.arange(4_000_000)}
    if world.rank == 0:
        state["listeners"] = {"window": torch.arange(5), "log": "file"}
    with Saver(Checkpoints(directory), world=world) as saver:
        saver.save(state, step=1)


def test_copies_are_saved_once(tmp_path: Path) -> None:
    ranks.run(save_copies, 2, tmp_path / "run")
    alone = {"params": placed_states.leaves(), "big": torch.arange(4_000_000)}
    alone["listeners"] = {"window": torch.arange(5), "log": "file"}
    assert tree.equal(Checkpoints(tmp_path / "run").restore()[0], alone)
