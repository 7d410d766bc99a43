"""A reader beside a writer: whatever the two do in between each other, it reads old or new.

The writer is halted before one of its calls, the reader begins, and before one of its calls the
writer goes on to its end; every pair of calls is tried.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from crashes.place import LONG, say

from functrain import tree
from functrain.checkpoint import Checkpoints, load, save

CALLS = ("open", "mkdir", "pwrite", "write", "fsync", "rename", "unlink", "rmdir")
CALLS += ("listdir", "preadv", "fstat", "stat", "lstat", "close")
PATIENCE = 20.0


def sample(value: int) -> Any:
    return {"params": {"w": torch.full((40,), float(value))}, "ema": torch.tensor(value)}


class Turns:
    """Halts one thread before its n-th call until another comes to its m-th."""

    def __init__(self, patch: pytest.MonkeyPatch, writes: Callable[[], Any], halt: int) -> None:
        self.halt, self.writes = halt, writes
        self.halted, self.go_on = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self.writer = threading.Thread(target=self.write)
        self.reader, self.wait_for = threading.get_ident(), 0
        self.written = self.read = 0
        for name in CALLS:
            patch.setattr(os, name, self.counted(getattr(os, name)))

    def counted(self, call: Any) -> Any:
        def made(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == self.reader:
                self.read += 1
                if self.read == self.wait_for:
                    self.finish()
            else:
                self.written += 1
                if self.written == self.halt:
                    self.halted.set()
                    assert self.go_on.wait(PATIENCE)
            return call(*args, **kwargs)

        return made

    def write(self) -> None:
        try:
            self.writes()
        except BaseException as error:  # (raised in the other thread)
            self.error = error
        finally:
            self.halted.set()

    def start(self, wait_for: int) -> None:
        self.writer.start()
        assert self.halted.wait(PATIENCE)
        self.read, self.wait_for = 0, wait_for

    def finish(self) -> None:
        self.go_on.set()
        self.writer.join()
        assert self.error is None


def interleaved(place: Path, write: Callable[[Path, int], Any], read: Callable[[Path], Any]) -> int:
    """Try every pair of calls; how many there were."""
    pairs, halt, ended = 0, 0, False
    while not ended:
        halt += 1
        wait_for = 0
        while True:
            wait_for += 1 if LONG else 2
            write(place / "run", 1)
            with pytest.MonkeyPatch.context() as patch:
                turns = Turns(patch, lambda: write(place / "run", 2), halt)
                turns.start(wait_for)
                ended = not turns.writer.is_alive() or turns.written < halt
                try:
                    read(place / "run")
                except BaseException as error:
                    error.add_note(f"writer halted before {halt}, reader before {wait_for}")
                    raise
                finally:
                    calls = turns.read
                    turns.finish()
            shutil.rmtree(place / "run")
            pairs += 1
            if calls < wait_for or ended:
                break
    return pairs


def newest(run: Path) -> Any:
    return Checkpoints(run).restore()[0]


def save_next(run: Path, value: int) -> None:
    Checkpoints(run, keep_last=1).save(sample(value), step=value)


def save_again(run: Path, value: int) -> None:
    Checkpoints(run).save(sample(value), step=1)


def save_path(run: Path, value: int) -> None:
    save(run / "weights", sample(value), overwrite=True)


@pytest.mark.row(36)
@pytest.mark.parametrize(
    ("what", "write", "read"),
    [
        ("the replacement of a path", save_path, lambda run: load(run / "weights")),
        pytest.param("retention", save_next, newest, marks=pytest.mark.long),
        pytest.param("the replacement of a step", save_again, newest, marks=pytest.mark.long),
    ],
    ids=["path", "pruned", "step"],
)
def test_the_checkpoint_being_read_is_replaced_or_pruned(
    what: str, write: Any, read: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(run: Path) -> None:
        found = read(run)
        assert tree.equal(found, sample(1)) or tree.equal(found, sample(2))

    pairs = interleaved(tmp_path, write, check)
    say(capsys, f"read beside {what} in {pairs} ways")
    assert pairs > 100
