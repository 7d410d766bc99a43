"""Row 35: when the system refuses, nothing is said to be saved that is not, and nothing is lost."""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from crashes.faults import Failing
from crashes.place import scratch

from functrain import tree
from functrain.checkpoint import Checkpoints, load, save
from functrain.checkpoint.storage.worker_thread import WorkerThread
from functrain.errors import (
    CheckpointExistsError,
    CheckpointWriteError,
    FunctrainWarning,
    RunDirectoryError,
)

OLD = {"params": {"w": torch.zeros(4)}, "step": 1}
NEW = {"params": {"w": torch.ones(4)}, "step": 2}
ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EINTR, errno.EROFS, errno.EMFILE)
# Longer than two blocks, so that it is written in pieces by a thread of its own.
LARGE = {"params": {"w": torch.arange(2_400_000.0)}, "step": 3}


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with scratch() as directory:
        yield directory


def attempt(path: Path, overwrite: bool) -> CheckpointWriteError | None:
    try:
        save(path, NEW, overwrite=overwrite)
    except CheckpointWriteError as error:
        return error
    return None


def hidden(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if name.startswith(".") and name != ".lock"]


@pytest.mark.row(35)
@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("overwrite", [False, True])
def test_every_call_failing(tmp_path: Path, code: int, overwrite: bool) -> None:
    nth, failures = 0, set()
    while True:
        nth += 1
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        save(tmp_path / "run" / "old", OLD)
        if overwrite:
            save(tmp_path / "run" / "new", OLD)
        with pytest.MonkeyPatch.context() as patch:
            failing = Failing(patch, nth, code)
            told = attempt(tmp_path / "run" / "new", overwrite)
        assert tree.equal(load(tmp_path / "run" / "old"), OLD)
        if not failing.failed:
            break
        failures.add(failing.failed)
        assert failing.synced_again == set()
        assert told is not None or not failing.lost
        if told is not None:
            assert str(tmp_path / "run" / "new") in str(told)
            assert told.errno == code
        if told is None or overwrite or (tmp_path / "run" / "new").exists():
            loaded = load(tmp_path / "run" / "new")
            older = overwrite and told is not None and tree.equal(loaded, OLD)
            assert older or tree.equal(loaded, NEW)
        save(tmp_path / "run" / "new", NEW, overwrite=True)
        assert hidden(tmp_path / "run") == []
    assert tree.equal(load(tmp_path / "run" / "new"), NEW)
    assert failures >= {"open", "mkdir", "write", "pwrite", "posix_fallocate", "fsync", "rename"}
    assert nth > 20


@pytest.mark.row(35)
@pytest.mark.parametrize("code", ERRORS)
def test_every_call_failing_in_a_run(tmp_path: Path, code: int) -> None:
    nth = 0
    while True:
        nth += 1
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        store = Checkpoints(tmp_path / "run", keep_last=1, keep_best=0)
        store.save(OLD, step=1)
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore", FunctrainWarning)
            failing = Failing(patch, nth, code)
            saved = True
            try:
                store.save(NEW, step=2)
            except (CheckpointWriteError, RunDirectoryError):
                saved = False
        assert failing.synced_again == set()
        loaded, manifest = store.restore()
        assert manifest.step == 2 if saved else manifest.step in (1, 2)
        assert tree.equal(loaded, {1: OLD, 2: NEW}[manifest.step or 0])
        if not failing.failed:
            break
    assert nth > 20


@pytest.mark.row(35)
def test_every_call_failing_while_blocks_are_written(
    tmp_path: Path, workers: list[WorkerThread]
) -> None:
    nth, failures = 0, []
    save(tmp_path / "run" / "new", OLD)
    while True:
        nth += 1
        with pytest.MonkeyPatch.context() as patch:
            failing = Failing(patch, nth, ERRORS[nth % len(ERRORS)])
            told = None
            try:
                save(tmp_path / "run" / "new", LARGE, overwrite=True)
            except CheckpointWriteError as error:
                told = error
        failures.append(failing.failed)
        assert failing.synced_again == set()
        assert told is not None or not failing.lost
        loaded = load(tmp_path / "run" / "new")
        assert tree.equal(loaded, LARGE) or (told is not None and tree.equal(loaded, OLD))
        if not failing.failed:
            break
        save(tmp_path / "run" / "new", OLD, overwrite=True)
        assert hidden(tmp_path / "run") == []
    assert failures.count("pwrite") >= 3
    assert workers
    assert all(each.wait(0.0) for each in workers)


def test_a_full_disk_is_noticed_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100_000, 90_000, 10_000))
    with pytest.raises(
        CheckpointWriteError, match=r"needs .* bytes, and 10,000 are free"
    ) as caught:
        save(tmp_path / "new" / "c", {"w": torch.zeros(10_000)})
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_nothing_foreign_is_replaced(tmp_path: Path) -> None:
    place = tmp_path / "c"
    save(place, OLD)
    with pytest.raises(CheckpointExistsError, match="overwrite=True"):
        save(place, NEW)
    save(place, NEW, overwrite=True)
    assert tree.equal(load(place), NEW)
    (place / "thesis.tex").write_text("three years")
    with pytest.raises(CheckpointExistsError, match=r"thesis\.tex"):
        save(place, OLD, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointExistsError, match="is a file"):
        save(tmp_path / "file", OLD, overwrite=True)
    with pytest.raises(CheckpointWriteError, match="Not a directory"):
        save(tmp_path / "file" / "c", OLD)
    (tmp_path / "empty").mkdir()
    save(tmp_path / "empty", OLD)


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "c", OLD)
    assert list(tmp_path.iterdir()) == []
