"""Rows 34 and 35 on real file systems: full, read-only, without power.

They are small, mounted from files or in memory; where that is not allowed the tests are skipped.
"""

from __future__ import annotations

import errno
import os
import random
import select
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from crashes.mounts import copy_of_one_moment, image, in_memory, looped, run, stop
from crashes.place import LONG, say

from functrain import tree
from functrain.checkpoint import Checkpoints, load, save
from functrain.errors import CheckpointWriteError, RunDirectoryError

pytestmark = [pytest.mark.slow, pytest.mark.row(35)]
KINDS = ["ext4", "xfs"]
# How to mount a copy beside the original.
COPY: dict[str, tuple[str, ...]] = {"ext4": (), "xfs": ("nouuid",)}


def sample(value: int, length: int = 400_000) -> Any:
    params = {"w": torch.full((length,), float(value)), "b": torch.arange(100) * value}
    return {"params": params, "ema": {"w": torch.full((1000,), value)}, "value": value}


@pytest.fixture(params=[*KINDS, "tmpfs"])
def mount(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB or more, of each kind there is."""
    if request.param == "tmpfs":
        with in_memory(tmp_path / "mount", 16 << 20) as place:
            yield place
    else:
        with looped(image(tmp_path / "image", request.param), tmp_path / "mount") as place:
            yield place


def fill(directory: Path, leave: int) -> None:
    """Fill the disk except for some bytes."""
    # Cut, not removed: the room of a removed file is free only after a while with XFS.
    with open(directory / "filler", "wb") as file:
        offset, size = 0, free(directory)
        while size >= 4096 and free(directory) > leave:
            size = min(size, free(directory) - leave)
            try:
                os.posix_fallocate(file.fileno(), offset, size)
                offset += size
            except OSError:  # not all of the reported space is available
                size //= 2


def free(directory: Path) -> int:
    status = os.statvfs(directory)
    return status.f_bavail * status.f_bsize


def full_disk(
    mount: Path, levels: list[int], capsys: pytest.CaptureFixture[str], check_first: bool
) -> None:
    """Save a checkpoint of 1.6 MB with less and less room for it."""
    store = Checkpoints(mount / "run", keep_last=1, keep_best=0)
    store.save(sample(0), step=0)
    newest, failures = 0, 0
    usage = shutil.disk_usage(mount)._replace(free=1 << 40)
    for step, leave in enumerate(levels, 1):
        fill(mount, leave)
        with pytest.MonkeyPatch.context() as patch:
            if not check_first:  # what is free can change after it was looked at
                patch.setattr(shutil, "disk_usage", lambda _: usage)
            try:
                store.save(sample(step), step=step)
                newest = step
            except (CheckpointWriteError, RunDirectoryError) as error:
                assert error.errno == errno.ENOSPC
                failures += 1
        loaded, manifest = store.restore()
        assert manifest.step == newest
        assert tree.equal(loaded, sample(newest))
        assert store.steps() == [newest]
    os.truncate(mount / "filler", 0)
    store.save(sample(1000), step=1000)
    assert tree.equal(store.restore()[0], sample(1000))
    hidden = {name for name in os.listdir(store.directory) if name.startswith(".")}
    assert hidden == {".lock"}
    say(capsys, f"full at {len(levels)} levels: {failures} saves refused, none lost")
    assert 0 < failures < len(levels)


@pytest.mark.parametrize("check_first", [True, False], ids=["known before", "found out"])
def test_a_full_disk(mount: Path, check_first: bool, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(0)
    levels = [0, 4096, 8192, 1_600_000, 3_000_000]
    levels += [chance.randrange(1_800_000) // 4096 * 4096 for _ in range(100 if LONG else 15)]
    full_disk(mount, levels, capsys, check_first)


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_becomes_read_only(kind: str, tmp_path: Path) -> None:
    with looped(image(tmp_path / "image", kind), tmp_path / "mount") as mount:
        store = Checkpoints(mount / "run")
        store.save(sample(1), step=1)
        save(mount / "weights", sample(1))
        run("mount", "-o", "remount,ro", mount)
        with pytest.raises(RunDirectoryError) as caught:
            store.save(sample(2), step=2)
        assert caught.value.errno == errno.EROFS
        with pytest.raises(CheckpointWriteError) as refused:
            save(mount / "weights", sample(2), overwrite=True)
        assert refused.value.errno == errno.EROFS
        assert tree.equal(store.restore()[0], sample(1))
        assert tree.equal(load(mount / "weights"), sample(1))
        run("mount", "-o", "remount,rw", mount)
        store.save(sample(2), step=2)
        assert tree.equal(store.restore()[0], sample(2))


# -- power cuts --------------------------------------------------------------------------------


def writing(directory: Path, said: int) -> None:
    """Save forever, alternately as the next step and at one path, and report each save."""
    store = Checkpoints(directory / "run", keep_last=2, keep_best=0)
    for step in range(1, 1 << 30):
        tree_ = sample(step, 20_000 + 90_000 * (step % 5))
        store.save(tree_, step=step)
        os.write(said, f"step {step}\n".encode())
        save(directory / "same", tree_, overwrite=True)
        os.write(said, f"same {step}\n".encode())


def forked_writer(directory: Path) -> tuple[int, int]:
    """(process, a descriptor that tells what it has saved)."""
    told, said = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            writing(directory, said)
        finally:
            os._exit(1)
    os.close(said)
    os.set_blocking(told, False)
    return child, told


def heard(told: int, before: bytes) -> bytes:
    """All that was said so far."""
    while True:
        try:
            more = os.read(told, 1 << 16)
        except BlockingIOError:
            return before
        if not more:
            return before
        before += more


def newest(said: bytes) -> dict[str, int]:
    return {name.decode(): int(step) for name, step in map(bytes.split, said.splitlines())}


def check_after_power_cut(mount: Path, promised: dict[str, int]) -> None:
    """Check that saved checkpoints exist; one that was being saved may or may not."""
    store = Checkpoints(mount / "run", keep_last=2, keep_best=0)
    if "step" in promised:
        loaded, manifest = store.restore()
        assert manifest.step is not None
        assert manifest.step >= promised["step"]
        assert tree.equal(loaded, sample(manifest.step, 20_000 + 90_000 * (manifest.step % 5)))
        for step in store.steps():
            store.verify(step)
    if "same" in promised:
        loaded = load(mount / "same")
        assert loaded["value"] >= promised["same"]
        assert tree.equal(loaded, sample(loaded["value"], loaded["params"]["w"].numel()))
    store.save(sample(1 << 20, 100), step=1 << 20)
    hidden = {name for name in os.listdir(store.directory) if name.startswith(".")}
    assert hidden == {".lock"}


@pytest.mark.row(34)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options", [(), ("data=writeback", "commit=1")], ids=["plain", "writeback"]
)
def test_power_cuts(
    kind: str, options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "xfs" and options:
        pytest.skip("these are options of ext4")
    chance, cuts, said, number = random.Random(0), 60 if LONG else 6, b"", 0
    with looped(image(tmp_path / "image", kind), tmp_path / "mount", *options) as mount:
        child, told = forked_writer(mount)
        try:
            # More of them where the machine is slow: what nobody saved cannot be lost.
            while number < cuts or (newest(said).get("step", 0) <= cuts / 2 and number < 10 * cuts):
                number += 1
                time.sleep(chance.uniform(0.02, 0.2))
                stop(child)
                said = heard(told, said)
                copy_of_one_moment(tmp_path / "image", tmp_path / "copy")
                os.kill(child, signal.SIGCONT)
                with looped(tmp_path / "copy", tmp_path / "after", *COPY[kind]) as after:
                    check_after_power_cut(after, newest(said))
                (tmp_path / "copy").unlink()
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(told)
    say(capsys, f"{kind}: {number} power cuts during {newest(said)['step']} saves")
    assert newest(said)["step"] > cuts / 2


@pytest.mark.row(34)
@pytest.mark.parametrize("kind", KINDS)
def test_shut_down_by_the_kernel(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file system stops at once, its journal unwritten, and is mounted again."""
    if shutil.which("xfs_io") is None:
        pytest.skip("xfs_io is not installed")
    chance, cuts, promised = random.Random(0), 60 if LONG else 6, dict[str, int]()
    image(tmp_path / "image", kind)
    for number in range(cuts):
        with looped(tmp_path / "image", tmp_path / "mount") as mount:
            shutil.rmtree(mount / "run", ignore_errors=True)
            child, told = forked_writer(mount)
            if number % 2:  # some time after it has saved, and at any time
                select.select([told], [], [], 60)
            time.sleep(chance.uniform(0.05, 0.3))
            stop(child)
            said = heard(told, b"")
            run("xfs_io", "-x", "-c", "shutdown", mount)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(told)
        promised = newest(said)
        with looped(tmp_path / "image", tmp_path / "mount") as mount:
            check_after_power_cut(mount, promised)
    say(capsys, f"{kind}: shut down {cuts} times, none lost")
    assert promised


@pytest.mark.parametrize("kind", KINDS)
def test_power_cuts_notice_a_writer_that_does_not_sync(kind: str, tmp_path: Path) -> None:
    """The test above can fail: without syncing, what was said to be saved is lost."""
    with looped(image(tmp_path / "image", kind), tmp_path / "mount") as mount:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda _: None)
            Checkpoints(mount / "run").save(sample(1, 100), step=1)
        copy_of_one_moment(tmp_path / "image", tmp_path / "copy")
        with (
            looped(tmp_path / "copy", tmp_path / "after", *COPY[kind]) as after,
            pytest.raises(FileNotFoundError),
        ):
            check_after_power_cut(after, {"step": 1})
