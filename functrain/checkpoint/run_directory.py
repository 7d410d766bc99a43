"""A run directory: one writer at a time, and a mark of its format."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from functrain.checkpoint.storage.commit import named, sweep
from functrain.checkpoint.storage.files import (
    created,
    make_directories,
    sync_directory,
    try_lock,
    turn,
    unlock,
    write_all,
)
from functrain.errors import (
    CheckpointFormatError,
    NoCheckpointError,
    RunDirectoryBusyError,
    RunDirectoryError,
)

METRICS_LOG = "metrics.jsonl"
_MARK = "functrain run directory, format "
_VERSION = "1.0"
_MAJOR = 1
_MARKED = re.compile(re.escape(_MARK) + r"(\d{1,9})\.")
# As `step_name` writes it; what else is called alike is not ours.
_STEP = re.compile(r"step-([0-9]{8}|[1-9][0-9]{8,17})")
# Worker processes that a killed writer has left hold its lock until they notice, within 5 s.
_PATIENCE = 10.0


def absolute(path: str | Path) -> Path:
    """A path that a later change of the working directory does not change."""
    return Path(path).absolute()


def step_name(step: int) -> str:
    """The name of a step's checkpoint.

    Example:
        >>> step_name(120)
        'step-00000120'
    """
    return f"step-{step:08d}"


def list_steps(directory: Path) -> list[int]:
    """Steps that have a checkpoint, in numeric order; none where the directory does not exist.

    Raises:
        RunDirectoryError: it is no directory, or may not be read.
    """
    try:
        # Of one listing: a name that is being replaced is in it in one form or the other.
        names = [named(entry) for entry in os.listdir(directory)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unusable(directory, error) from error
    return sorted({int(match[1]) for match in map(_STEP.fullmatch, names) if match})


def check_format(directory: Path) -> None:
    """Refuse a run directory that a newer functrain has written.

    Raises:
        CheckpointFormatError: it has.
    """
    try:
        text = (directory / "FORMAT").read_text(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unusable(directory, error) from error
    # A damaged mark is no reason to stop: every checkpoint tells its own format.
    match = _MARKED.match(text)
    if match is not None and int(match[1]) > _MAJOR:
        raise CheckpointFormatError(
            f"{directory / 'FORMAT'} says {text.strip()!r}, but this version of functrain works "
            f"with {_MARK + _VERSION!r}; install a newer functrain or choose another directory"
        )


def missing(place: Path) -> NoCheckpointError:
    """What to raise where a checkpoint was asked for and there is something else, or nothing."""
    steps = list_steps(place) if place.is_dir() else []
    if steps:
        newest = place / step_name(steps[-1])
        told = f"{place} is a run directory; its newest checkpoint is {newest}"
        return NoCheckpointError(errno.ENOENT, told)
    told = f"there is no checkpoint at {place}"
    if place.is_file():
        told += (
            ": it is a file, and a checkpoint is a directory; functrain.checkpoint.weights reads "
            "files of weights"
        )
    elif place.parent.is_dir() and (beside := list_steps(place.parent)):
        told += f"; there are those of the steps {beside}"
    return NoCheckpointError(errno.ENOENT, told)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Be the only process that writes to a run directory; it is made if it does not exist.

    A process that has the lock may take it again. The system frees it when the process dies.

    Raises:
        RunDirectoryBusyError: another process has it.
        RunDirectoryError: the directory cannot be made, read or written.
        CheckpointFormatError: a newer functrain has written there.
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
                os.ftruncate(descriptor, 0)  # a name must not outlive its lock
        unlock(descriptor, owner)


def _acquire(descriptor: int, directory: Path) -> bool:
    """Take the lock; ``False`` if this process has it already."""
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
                "wait for it, end it, or choose another directory",
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
    if pid == 0:  # whoever has the lock has not written its name yet
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _prepare(directory: Path) -> None:
    try:
        with turn(directory):
            sweep(directory)
        mark = directory / "FORMAT"
        if not mark.exists():
            draft = directory / ".FORMAT"
            draft.unlink(missing_ok=True)
            with created(draft) as descriptor:
                write_all(descriptor, f"{_MARK}{_VERSION}\n".encode())
            os.rename(draft, mark)
            sync_directory(directory)
    except OSError as error:
        raise _unusable(directory, error) from error


def _unusable(directory: Path, error: OSError) -> RunDirectoryError:
    return RunDirectoryError(
        error.errno,
        f"the run directory {directory} cannot be used: {error.strerror or error}. Choose "
        "another, or mend what the system says of this one",
        error.filename,
    )
