"""File operations of a durable store."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from functrain.errors import FunctrainError


@contextlib.contextmanager
def system_errors(place: object, kind: Callable[[Any, OSError], Exception]) -> Iterator[None]:
    """Translate errors of the system, or of a store, into an error that names the place."""
    try:
        yield
    except FunctrainError:
        raise
    except OSError as error:
        raise kind(place, error) from error


def create(path: Path) -> int:
    """Create a file and return its descriptor for writing; the umask limits who may read it."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)


@contextlib.contextmanager
def created(path: Path) -> Iterator[int]:
    """Create a file that is durable when the ``with`` block ends without error."""
    descriptor = create(path)
    try:
        yield descriptor
        sync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes, locked: bool = False) -> None:
    """Write a file atomically and durably, creating its folder if missing.

    If the caller has ``locked`` the folder, what a killed writer left is used again.
    """
    make_directories(path.parent)
    draft = path.with_name(f".{path.name}" if locked else f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with created(draft) as descriptor:
        write_all(descriptor, data)
    draft.rename(path)
    sync_directory(path.parent)


def sync(descriptor: int) -> None:
    """Wait until written data is on the disk, not in its cache."""
    if hasattr(fcntl, "F_FULLFSYNC"):  # macOS, where fsync does not flush the disk's cache
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def preallocate(descriptor: int, length: int) -> None:
    """Reserve disk space for a file, where the file system can, so that a full disk fails early."""
    if length == 0 or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, length)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV):
            raise


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a file for reading, without following a link or blocking on a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        close(descriptor)


def write_all(descriptor: int, data: memoryview | bytes, offset: int | None = None) -> None:
    """Write all bytes, at an offset or at the end; one system call may write only part of them."""
    left = memoryview(data)
    while left:
        if offset is None:
            written = os.write(descriptor, left)
        else:
            written = os.pwrite(descriptor, left, offset + len(data) - len(left))
        if written == 0:
            raise OSError(errno.EIO, "the system wrote nothing without reporting an error")
        left = left[written:]


def read_into(descriptor: int, target: memoryview, offset: int) -> int:
    """Fill ``target`` from an offset in a file; return the bytes read, less only at its end."""
    done = 0
    while done < len(target):
        count = os.preadv(descriptor, [target[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done


def close(descriptor: int) -> None:
    """Close a descriptor that was not written to, so that an error loses no data."""
    with contextlib.suppress(OSError):
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        close(descriptor)


def make_directories(path: Path) -> None:
    """Create a directory and its missing parents, durably."""
    if path.is_dir():
        return
    make_directories(path.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    sync_directory(path.parent)


def try_lock(descriptor: int) -> bool | None:
    """Try to lock an open file; return ``None`` where locks do not work (some network disks)."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


def unlock(descriptor: int, owner: int) -> None:
    """Release the lock of an open file and close it.

    Closing alone would leave the lock with child processes forked meanwhile. A child, in turn, must
    not release the lock of its parent ``owner``.
    """
    if os.getpid() == owner:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    close(descriptor)


@contextlib.contextmanager
def directory_lock(directory: Path) -> Iterator[None]:
    """Lock a directory while names in it are changed, waiting for other processes.

    Where locks do not work (some network file systems), nobody waits; renames are atomic anyway.
    """
    descriptor, owner = os.open(directory, os.O_RDONLY | os.O_DIRECTORY), os.getpid()
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        unlock(descriptor, owner)
