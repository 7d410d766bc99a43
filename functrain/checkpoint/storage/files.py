"""The few operations on files that a durable store needs."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def create(path: Path) -> int:
    """The descriptor of a new file to write, readable for all that the umask lets read it."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)


@contextlib.contextmanager
def created(path: Path) -> Iterator[int]:
    """The descriptor of a new file, which is on the disk when the block ends without error."""
    descriptor = create(path)
    try:
        yield descriptor
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync(descriptor: int) -> None:
    """Wait until what was written is on the disk, not in a cache of it."""
    if hasattr(fcntl, "F_FULLFSYNC"):  # where fsync stops at the disk's own cache
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def preallocate(descriptor: int, length: int) -> None:
    """Take room for a file, so that a full disk is known before it is written.

    Raises:
        OSError: there is none. A file system that cannot say is no error.
    """
    if length == 0 or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, length)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV):
            raise


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """The descriptor of a regular file to read; no link is followed, no pipe waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        close(descriptor)


def write_all(descriptor: int, data: memoryview | bytes) -> None:
    """Write all bytes, in as many calls as the system wants."""
    left = memoryview(data)
    while left:
        written = os.write(descriptor, left)
        if written == 0:
            raise OSError(errno.EIO, "the system wrote nothing and gave no reason")
        left = left[written:]


def read_into(descriptor: int, target: memoryview, offset: int) -> int:
    """Fill ``target`` from a place in a file; fewer bytes only where the file ends.

    Returns:
        Number of bytes read.
    """
    done = 0
    while done < len(target):
        count = os.preadv(descriptor, [target[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done


def read_side_by_side(descriptor: int, targets: list[memoryview], offset: int) -> int:
    """Fill several targets, with at most 1,000 of them, from consecutive places in a file.

    Returns:
        Number of bytes read; fewer than there is room for only where the file ends.
    """
    done = os.preadv(descriptor, targets, offset)
    position = 0
    for target in targets:  # the system may stop anywhere
        missing = position + len(target) - done
        position += len(target)
        if missing > 0:
            start = max(len(target) - missing, 0)
            count = read_into(descriptor, target[start:], offset + done)
            done += count
            if count < len(target) - start:
                break
    return done


def close(descriptor: int) -> None:
    """Close a descriptor that nothing was written through; failing to do so loses nothing."""
    with contextlib.suppress(OSError):
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        close(descriptor)


def make_directories(path: Path) -> None:
    """Create a directory and what is missing above it, durably."""
    if path.is_dir():
        return
    make_directories(path.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    sync_directory(path.parent)


def try_lock(descriptor: int) -> bool | None:
    """Take the lock of an open file.

    Returns:
        Whether it is had; ``None`` where locks do not work (some network file systems).
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


def unlock(descriptor: int, owner: int) -> None:
    """Free the lock of an open file and close it.

    Closing alone would leave the lock with processes that were forked meanwhile; and those may
    not free it for the process ``owner``, whose it is.
    """
    if os.getpid() == owner:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    close(descriptor)


@contextlib.contextmanager
def turn(directory: Path) -> Iterator[None]:
    """Wait for one's turn among the processes that change names in a directory.

    Without locks (some network file systems) everyone goes at once, and renaming stays atomic.
    """
    descriptor, owner = os.open(directory, os.O_RDONLY | os.O_DIRECTORY), os.getpid()
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        unlock(descriptor, owner)
