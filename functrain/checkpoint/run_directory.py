"""A run directory: names of checkpoints, the writer's lock, and the format mark."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from functrain.checkpoint.storage.commit import final_name, sweep
from functrain.checkpoint.storage.files import (
    directory_lock,
    make_directories,
    replace_file,
    try_lock,
    unlock,
)
from functrain.errors import (
    CheckpointFormatError,
    NoCheckpointError,
    RunDirectoryBusyError,
    RunDirectoryError,
)
from functrain.errors.nearest import nearest

_MARK = "functrain run directory, format "
_VERSION = "1.0"
_MAJOR = 1
_MARKED = re.compile(re.escape(_MARK) + r"(\d{1,9})\.")
# Exactly the names that `step_name` gives; similar names belong to someone else.
STEP_NAME = re.compile(r"step-([0-9]{8}|[1-9][0-9]{8,17})")
# Orphaned worker processes of a killed writer hold its lock until they notice, within 5 s.
_PATIENCE = 10.0
# Process, device and inode of the directories of runs: a link leads to the same directory, and a
# forked child has no runs.
_RUNS: dict[tuple[int, int, int], object] = {}


def step_name(step: int) -> str:
    """Return the directory name of a step's checkpoint."""
    return f"step-{step:08d}"


def list_steps(directory: Path) -> list[int]:
    """Return the steps that have a checkpoint, in order; none if the directory does not exist."""
    try:
        # One listing shows a checkpoint that is being replaced under one of its two names.
        names = [final_name(entry) for entry in os.listdir(directory)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unusable(directory, error) from error
    return sorted({int(match[1]) for match in map(STEP_NAME.fullmatch, names) if match})


def check_format(directory: Path) -> None:
    """Raise if a newer functrain has written to the run directory."""
    try:
        text = (directory / "FORMAT").read_text(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unusable(directory, error) from error
    # Ignore a damaged mark: every checkpoint states its own format.
    match = _MARKED.match(text)
    if match is not None and int(match[1]) > _MAJOR:
        raise CheckpointFormatError(
            f"{directory / 'FORMAT'} says {text.strip()!r}, but this version of functrain works "
            f"with {_MARK + _VERSION!r}; install a newer functrain or choose another directory"
        )


def missing(place: Path) -> NoCheckpointError:
    """Return the error for a path that is not a checkpoint, with a hint at what it is."""
    steps = list_steps(place) if place.is_dir() else []
    if steps:
        newest = place / step_name(steps[-1])
        message = f"{place} is a run directory; its newest checkpoint is {newest}"
        return NoCheckpointError(errno.ENOENT, message)
    message = f"there is no checkpoint at {place}"
    if place.is_file():
        message += (
            ": it is a file, and a checkpoint is a directory; functrain.checkpoint.weights reads "
            "files of weights"
        )
    elif place.parent.is_dir() and (steps := list_steps(place.parent)):
        message += f"; the directory has the steps {steps}"
    else:
        message += _what_exists(place.absolute())
    return NoCheckpointError(errno.ENOENT, message)


def _what_exists(place: Path) -> str:
    """Return what is there as far as a path exists, and the nearest name where it ends."""
    above = next(path for path in place.parents if path.is_dir())
    names = sorted(path.name for path in above.iterdir())
    near = nearest(place.relative_to(above).parts[0], names)
    return f"; {above} has {', '.join(names[:8]) or 'nothing in it'}{near}"


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the writer's lock of a run directory, which is created if it does not exist.

    The lock is reentrant within a process. The system releases it when the process dies.
    """
    try:
        make_directories(directory)
        check_format(directory)
        descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except RunDirectoryError:
        raise
    except OSError as error:
        raise _unusable(directory, error) from error
    owner, acquired = os.getpid(), False
    try:
        acquired = _acquire(descriptor, directory)
        if acquired:
            _prepare(directory)
        yield
    finally:
        if acquired and owner == os.getpid():
            with contextlib.suppress(OSError):
                # Clear our name before the lock is released: it must not outlive the lock.
                os.ftruncate(descriptor, 0)
        unlock(descriptor, owner)


@contextlib.contextmanager
def used_by_one_run(directory: Path) -> Iterator[None]:
    """Hold a run directory's lock for one run, which no other run of this process shares.

    A run saves below its lock, which is therefore reentrant, and would let a second run in.
    """
    with locked(directory):
        status, run = directory.stat(), object()
        place = (os.getpid(), status.st_dev, status.st_ino)
        if _RUNS.setdefault(place, run) is not run:
            raise RunDirectoryBusyError(
                errno.EBUSY,
                f"another run of this process is writing to {directory}; "
                "wait for its end, or choose another directory",
            )
        try:
            yield
        finally:
            del _RUNS[place]


def _acquire(descriptor: int, directory: Path) -> bool:
    """Take the lock; return ``False`` if this process holds it already."""
    here, own = socket.gethostname(), os.getpid()
    deadline = time.monotonic() + _PATIENCE
    while try_lock(descriptor) is False:
        host, pid = _holder(descriptor)
        if (host, pid) == (here, own):
            return False
        if host != here or _is_alive(pid) or time.monotonic() > deadline:
            raise RunDirectoryBusyError(
                errno.EBUSY,
                f"process {pid} on {host} is writing to {directory}; "
                "wait for it, stop it, or choose another directory",
            )
        time.sleep(0.05)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{here} {own}\n".encode(), 0)
    except OSError as error:
        raise _unusable(directory, error) from error
    return True


def _holder(descriptor: int) -> tuple[str, int]:
    host, _, pid = os.pread(descriptor, 300, 0).decode(errors="replace").strip().rpartition(" ")
    return (host, int(pid)) if pid.isdigit() else (socket.gethostname(), 0)


def _is_alive(pid: int) -> bool:
    if pid == 0:  # the holder of the lock has not written its name yet
        return False
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.EPERM  # it is the process of another user
    return True


def _prepare(directory: Path) -> None:
    try:
        with directory_lock(directory):
            sweep(directory)
        mark = directory / "FORMAT"
        if not mark.exists():
            replace_file(mark, f"{_MARK}{_VERSION}\n".encode(), locked=True)
    except OSError as error:
        raise _unusable(directory, error) from error


def _unusable(directory: Path, error: OSError) -> RunDirectoryError:
    return RunDirectoryError(
        error.errno,
        f"the run directory {directory} cannot be used: {error.strerror or error}. Choose "
        "another directory, or fix this one",
        error.filename,
    )
