"""Small file systems of one's own: loop-mounted ones and such in memory, taken down at the end."""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MAKE = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}
LEAST = {"ext4": 16 << 20, "xfs": 320 << 20}


def run(*command: str | Path) -> None:
    """Run a command; an error shows what it said."""
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


@contextlib.contextmanager
def mounted(place: Path, *arguments: str | Path) -> Iterator[Path]:
    """Mount something at a new directory for as long as the block lasts; skips where forbidden."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount file systems")
    place.mkdir()
    try:
        run("mount", *arguments, place)
    except OSError as error:
        place.rmdir()
        pytest.skip(f"file systems cannot be mounted here: {error}")
    try:
        yield place
    finally:
        run("umount", place)  # detaches the loop device, too
        place.rmdir()


@contextlib.contextmanager
def in_memory(place: Path, size: int) -> Iterator[Path]:
    """A tmpfs of so many bytes."""
    with mounted(place, "-t", "tmpfs", "-o", f"size={size}", "functrain-test") as mount:
        yield mount


def image(path: Path, kind: str) -> Path:
    """A file that holds an empty file system; skips where there is no program to make one."""
    program, *options = MAKE[kind]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    with open(path, "wb") as file:
        file.truncate(LEAST[kind])
    run(program, *options, path)
    return path


@contextlib.contextmanager
def looped(path: Path, place: Path, *options: str) -> Iterator[Path]:
    """The file system in a file."""
    with mounted(place, "-o", ",".join(("loop", *options)), path) as mount:
        yield mount


def stop(process: int) -> None:
    """Halt a process, and wait until all of its threads have left the kernel."""
    os.kill(process, signal.SIGSTOP)
    states = {"R"}
    while states - {"T", "t"}:
        stats = [each.read_text() for each in Path(f"/proc/{process}/task").glob("*/stat")]
        states = {text.rpartition(")")[2].split()[0] for text in stats}


def copy_of_one_moment(source: Path, target: Path) -> None:
    """Copy what is on a device, and nothing that is only in caches above it.

    The kernel may write to it by itself, and a copy made meanwhile would be of no moment at all;
    so it is copied until two copies are the same.
    """
    before = target.with_suffix(".before")
    subprocess.run(["cp", "--sparse=always", source, before], check=True)
    while True:
        subprocess.run(["cp", "--sparse=always", source, target], check=True)
        if filecmp.cmp(before, target, shallow=False):
            break
        target.replace(before)
    before.unlink()
