"""Failures while checkpoints are saved, exported, copied and removed."""

from __future__ import annotations

import os
import threading
from collections import namedtuple
from pathlib import Path

import pytest
import torch

import functrain as ft
from functrain import errors
from functrain.checkpoint import Saver
from functrain.checkpoint.snapshot import Snapshot

TREE = {"w": torch.ones(4)}
Usage = namedtuple("Usage", "total used free")


class Held:
    """A store that writes only when the test allows it."""

    def __init__(self, path: Path) -> None:
        self.store, self.go = ft.Checkpoints(path), threading.Event()

    def write(self, taken: Snapshot) -> Path:
        assert self.go.wait(10)
        return self.store.write(taken)


def broken(patches: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    patches.setattr(os, "fsync", fail)


def broken_disk(path: Path, patches: pytest.MonkeyPatch) -> None:
    broken(patches)
    ft.save(path / "c", TREE)


def twice(path: Path, _: object) -> None:
    ft.save(path / "c", TREE)
    ft.save(path / "c", TREE)


def changed(path: Path, _: object) -> None:
    held, value = Held(path), {"w": torch.ones(4)}
    saver = Saver(held)
    saver.save(value, step=1)
    value["w"].add_(1)
    held.go.set()
    saver.wait()


def late(path: Path, _: object) -> None:
    held = Held(path)
    saver = Saver(held)
    saver.save(TREE, step=1)
    try:
        saver.wait(timeout=0.01)
    finally:
        held.go.set()
        saver.close()


def unasked(path: Path, patches: pytest.MonkeyPatch) -> None:
    broken(patches)
    savers = [Saver(ft.Checkpoints(path))]
    savers[0].save(TREE, step=1)
    savers.clear()


MISTAKES = [
    (errors.CheckpointWriteError, broken_disk, "repair the disk or choose another place"),
    (errors.CheckpointExistsError, twice, "overwrite=True"),
    (errors.CheckpointChangedError, changed, "w was changed in place while it was being saved"),
    (errors.CheckpointTimeoutError, late, "step 1 is still being written after 0.01 s"),
    (errors.CheckpointWriteWarning, unasked, "step 1 was not saved"),
]
