"""Row 35: when the system refuses, nothing is said to be saved that is not, and nothing is lost."""

from __future__ import annotations

import errno
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from crashes.faults import each_call_failing

from functrain import tree
from functrain.checkpoint import Checkpoints, load, save
from functrain.errors import (
    CheckpointExistsError,
    CheckpointWriteError,
)

OLD = {"params": {"w": torch.zeros(4)}, "step": 1}
NEW = {"params": {"w": torch.ones(4)}, "step": 2}
ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EINTR, errno.EROFS, errno.EMFILE)
# Longer than two blocks, so that it is written in pieces by a thread of its own.
LARGE = {"params": {"w": torch.arange(2_400_000.0)}, "step": 3}


def hidden(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if name.startswith(".") and name != ".lock"]


@pytest.mark.row(35)
@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("overwrite", [False, True])
def test_every_call_failing(tmp_path: Path, code: int, overwrite: bool) -> None:
    run, failures = tmp_path / "run", []

    def prepare() -> None:
        shutil.rmtree(run, ignore_errors=True)
        save(run / "old", OLD)
        if overwrite:
            save(run / "new", OLD)

    act = partial(save, run / "new", NEW, overwrite=overwrite)
    for failing, told in each_call_failing(prepare, act, [code]):
        failures.append(failing.failed)
        assert tree.equal(load(run / "old"), OLD)
        assert told is not None or not failing.lost
        if told is not None:
            assert str(run / "new") in str(told)
            assert told.errno == code
        if told is None or overwrite or (run / "new").exists():
            loaded = load(run / "new")
            older = overwrite and told is not None and tree.equal(loaded, OLD)
            assert older or tree.equal(loaded, NEW)
        save(run / "new", NEW, overwrite=True)
        assert hidden(run) == []
    assert told is None
    assert {"open", "mkdir", "write", "pwrite", "posix_fallocate", "fsync", "rename"} < {*failures}
    assert len(failures) > 20


@pytest.mark.row(35)
@pytest.mark.parametrize("code", ERRORS)
def test_every_call_failing_in_a_run(tmp_path: Path, code: int) -> None:
    store, failures = Checkpoints(tmp_path / "run", keep_last=1, keep_best=0), []

    def prepare() -> None:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        store.save(OLD, step=1)

    for failing, told in each_call_failing(prepare, partial(store.save, NEW, step=2), [code]):
        failures.append(failing.failed)
        loaded, manifest = store.restore()
        assert manifest.step == 2 if told is None else manifest.step in (1, 2)
        assert tree.equal(loaded, {1: OLD, 2: NEW}[manifest.step or 0])
    assert len(failures) > 20


@pytest.mark.row(35)
def test_every_call_failing_while_blocks_are_written(tmp_path: Path) -> None:
    place, failures = tmp_path / "run" / "new", []
    reset = partial(save, place, OLD, overwrite=True)
    for failing, told in each_call_failing(
        reset, partial(save, place, LARGE, overwrite=True), ERRORS
    ):
        failures.append(failing.failed)
        assert told is not None or not failing.lost
        loaded = load(place)
        assert tree.equal(loaded, LARGE) or (told is not None and tree.equal(loaded, OLD))
        reset()
        assert hidden(tmp_path / "run") == []
    assert failures.count("pwrite") >= 3


def test_a_full_disk_is_noticed_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
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
