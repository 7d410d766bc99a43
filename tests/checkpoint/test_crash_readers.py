"""A reader beside a writer: whatever the two do in between each other, it reads old or new.

The writer is halted before one of its calls, the reader begins, and before one of its calls the
writer goes on to its end; every pair of calls is tried.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from crashes.place import LONG, say, scratch

from functrain import tree
from functrain.checkpoint import Checkpoints, load, save

CALLS = ("open", "mkdir", "pwrite", "write", "fsync", "rename", "unlink", "rmdir")
CALLS += ("listdir", "preadv", "fstat", "stat", "lstat", "close")
PATIENCE = 20.0


@pytest.fixture
def place() -> Iterator[Path]:
    with scratch() as directory:
        yield directory


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


def interleaved(
    place: Path,
    prepare: Callable[[Path], Any],
    write: Callable[[Path], Any],
    read: Callable[[Path], Any],
) -> int:
    """Try every pair of calls; how many there were."""
    pairs, halt, ended = 0, 0, False
    while not ended:
        halt += 1
        wait_for = 0
        while True:
            wait_for += 1 if LONG else 2
            prepare(place / "run")
            with pytest.MonkeyPatch.context() as patch:
                turns = Turns(patch, lambda: write(place / "run"), halt)
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


def is_one_of(found: Any, *values: int) -> bool:
    return any(tree.equal(found, sample(value)) for value in values)


@pytest.mark.long
@pytest.mark.row(36)
def test_the_checkpoint_being_read_is_pruned(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(run: Path) -> None:
        Checkpoints(run, keep_last=1).save(sample(1), step=1)

    def write(run: Path) -> None:
        Checkpoints(run, keep_last=1).save(sample(2), step=2)

    def read(run: Path) -> None:
        assert is_one_of(Checkpoints(run).restore()[0], 1, 2)

    pairs = interleaved(place, prepare, write, read)
    say(capsys, f"read beside retention in {pairs} ways")
    assert pairs > 100


@pytest.mark.long
@pytest.mark.row(36)
def test_the_checkpoint_being_read_is_replaced(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(run: Path) -> None:
        Checkpoints(run).save(sample(1), step=1)

    def write(run: Path) -> None:
        Checkpoints(run).save(sample(2), step=1)

    def read(run: Path) -> None:
        assert is_one_of(Checkpoints(run).restore()[0], 1, 2)

    pairs = interleaved(place, prepare, write, read)
    say(capsys, f"read beside the replacement of a step in {pairs} ways")
    assert pairs > 100


@pytest.mark.row(36)
def test_a_path_is_replaced_while_it_is_read(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(run: Path) -> None:
        save(run / "weights", sample(1))

    def write(run: Path) -> None:
        save(run / "weights", sample(2), overwrite=True)

    def read(run: Path) -> None:
        assert is_one_of(load(run / "weights"), 1, 2)

    pairs = interleaved(place, prepare, write, read)
    say(capsys, f"read beside the replacement of a path in {pairs} ways")
    assert pairs > 100
