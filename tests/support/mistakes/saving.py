"""Failures while checkpoints are saved, exported, copied and removed."""

from __future__ import annotations

import os
import shutil
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

import functrain as ft
from functrain import errors
from functrain.checkpoint import Saver
from functrain.checkpoint.exporting import export
from functrain.checkpoint.snapshot import Snapshot
from functrain.listeners import Mirror
from mistakes.mistake import batches, fit

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


def full_disk(path: Path, patches: pytest.MonkeyPatch) -> None:
    patches.setattr(shutil, "disk_usage", lambda _: Usage(100_000, 99_990, 10))
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


def kept(path: Path, patches: pytest.MonkeyPatch) -> None:
    from functrain.checkpoint.storage import commit

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    store = ft.Checkpoints(path, keep_last=1, keep_best=0)
    store.save(TREE, step=1)
    patches.setattr(commit, "remove", refuse)
    store.save(TREE, step=2)


def export_to_broken_disk(path: Path, patches: pytest.MonkeyPatch) -> None:
    place = ft.save(path / "c", {"params": TREE})
    broken(patches)
    export(place, path / "w.safetensors")


def unreachable(path: Path, patches: pytest.MonkeyPatch) -> None:
    memory = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem

    def fail(*_: Any, **__: Any) -> None:
        raise TimeoutError("no answer")

    patches.setattr(memory, "put_file", fail)
    fit(data=batches(), directory=path / "run", listeners=[Mirror(f"memory:/{path}")])


MISTAKES = {
    errors.CheckpointWriteError: [
        (
            broken_disk,
            "c was not saved: Input/output error … repair the disk or choose another place",
        ),
        (full_disk, "needs … and 10 are free … choose another place"),
        (
            export_to_broken_disk,
            "w.safetensors was not saved: Input/output error … "
            "Everything saved before is untouched",
        ),
    ],
    errors.CheckpointExistsError: [
        (twice, "c  … overwrite=True"),
    ],
    errors.CheckpointChangedError: [
        (changed, "w was changed in place while it was being saved … Saver(store, staged=True)"),
    ],
    errors.CheckpointTimeoutError: [
        (late, "step 1 is still being written after 0.01 s … Older checkpoints are untouched"),
    ],
    errors.CheckpointWriteWarning: [
        (unasked, "step 1 was not saved … Input/output error … fix this one"),
        (kept, "step-00000001 … Permission denied … the next save tries again"),
        (unreachable, "step-00000004 was saved, but not copied … no answer … again"),
    ],
}
