"""Faults that disturb a run, one function each; all randomness comes from the given generator."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TypeAlias

import functrain as ft
from functrain.errors import CheckpointCorruptError, NoCheckpointError
from torture.runs import Child

# (process, generator) -> allowed exit codes, or ``None`` for any.
Fault: TypeAlias = Callable[[Child, Random], set[int] | None]


def kill(child: Child, random: Random) -> set[int] | None:
    """Send SIGKILL to the process and all its workers."""
    child.signal(signal.SIGKILL)
    return {0, -signal.SIGKILL}


def terminate(child: Child, random: Random) -> set[int] | None:
    """Send SIGTERM: a checkpoint and exit code 143; before ``fit`` the process just ends."""
    child.signal(signal.SIGTERM, group=False)
    return {0, 143, -signal.SIGTERM}


def interrupt(child: Child, random: Random) -> set[int] | None:
    """Send SIGINT to all, like Ctrl-C in a terminal."""
    child.signal(signal.SIGINT)
    return {0, 130, 1, -signal.SIGINT}


def terminate_and_kill(child: Child, random: Random) -> set[int] | None:
    """Send SIGTERM and soon after SIGKILL, like cluster schedulers."""
    child.signal(signal.SIGTERM, group=False)
    time.sleep(random.uniform(0, 0.05))
    return {143, -signal.SIGTERM, *(kill(child, random) or ())}


def pause_and_kill(child: Child, random: Random) -> set[int] | None:
    """Stop all processes for a while, continue them, and kill them."""
    child.signal(signal.SIGSTOP)
    time.sleep(random.uniform(0.1, 1))
    child.signal(signal.SIGCONT)
    time.sleep(random.uniform(0, 0.3))
    return kill(child, random)


def kill_worker(child: Child, random: Random) -> set[int] | None:
    """Send SIGKILL to a data worker; the run ends with an error, or continues."""
    workers = children(child.process.pid)
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice(workers), signal.SIGKILL)
    return None


def limit_files(child: Child, random: Random) -> set[int] | None:
    """Limit the size of files, like a quota."""
    _limit(child, resource.RLIMIT_FSIZE, random.randrange(1 << 16))
    return None


def limit_memory(child: Child, random: Random) -> set[int] | None:
    """Limit the memory to little more than is in use."""
    try:
        pages = int(Path(f"/proc/{child.process.pid}/statm").read_text().split()[0])
    except (OSError, IndexError):
        return None
    used = pages * os.sysconf("SC_PAGE_SIZE")
    _limit(child, resource.RLIMIT_AS, used + random.randrange(8 << 20))
    return None


def fill_disk(child: Child, random: Random) -> set[int] | None:
    """Fill the file system, for a moment or until the run has ended."""
    ballast = child.directory.parent / "ballast"
    left = random.randrange(1 << 18)
    size = shutil.disk_usage(ballast.parent).free - left
    try:
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, size))
        if random.random() < 0.5:
            time.sleep(random.uniform(0.1, 1))
        else:
            child.await_end()
    except OSError:
        pass
    finally:
        ballast.unlink(missing_ok=True)
    if child.alive:
        child.signal(signal.SIGTERM, group=False)
    return None


def damage(child: Child, random: Random) -> set[int] | None:
    """Send SIGKILL and damage the newest checkpoint; an older valid one remains."""
    child.signal(signal.SIGKILL)
    child.await_end()
    store = ft.Checkpoints(child.directory)
    steps = store.steps() if child.directory.is_dir() else []
    if sum(_sound(store, step) for step in steps) > 1:
        spoil(store.path(steps[-1]), random)
    return None


def spoil(checkpoint: Path, random: Random) -> None:
    """Flip a bit of one of its files, cut it short, or remove it."""
    file = random.choice(sorted(checkpoint.iterdir()))
    data = bytearray(file.read_bytes())
    how = random.choice(["flip", "cut", "remove"])
    if how == "remove" or not data:
        file.unlink()
        return
    if how == "flip":
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    file.write_bytes(data if how == "flip" else data[: random.randrange(len(data))])


def children(parent: int) -> list[int]:
    """Return the child processes of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return sorted(found)


def _limit(child: Child, kind: int, value: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(child.process.pid, kind, (value, value))


def _sound(store: ft.Checkpoints, step: int) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store.verify(step)
    except (CheckpointCorruptError, NoCheckpointError):
        return False
    return True


FAULTS: dict[str, Fault] = {
    "kill": kill,
    "terminate": terminate,
    "interrupt": interrupt,
    "terminate and kill": terminate_and_kill,
    "pause and kill": pause_and_kill,
    "kill a worker": kill_worker,
    "limit of file size": limit_files,
    "limit of memory": limit_memory,
    "damaged checkpoint": damage,
}
FULL_DISK: dict[str, Fault] = {"full disk": fill_disk}
