"""Read the manifest of a checkpoint, which another process may replace meanwhile.

Errors of the system and of malformed manifests become errors of functrain.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from functrain.checkpoint.format.manifest import MANIFEST, Manifest, parse, parse_entry
from functrain.checkpoint.format.records import Entry
from functrain.checkpoint.run_directory import list_steps, missing
from functrain.checkpoint.storage.commit import present
from functrain.checkpoint.storage.files import directory_lock, opened, read_into, system_errors
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointReadError,
    FunctrainError,
    NoCheckpointError,
)
from functrain.errors.paths import absolute

_LARGEST_MANIFEST = 1 << 28
_MOST_ATTEMPTS = 5
_MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError)
T = TypeVar("T")


def read_manifest(path: str | Path) -> Manifest:
    """Read the manifest of a checkpoint without touching its tensors.

    Args:
        path: the checkpoint's directory.

    Raises:
        NoCheckpointError: the path does not exist.
        CheckpointCorruptError: the manifest is damaged.
        CheckpointFormatError: a newer functrain wrote it.

    Example:
        >>> import tempfile, torch
        >>> from functrain.checkpoint import save
        >>> place = save(Path(tempfile.mkdtemp()) / "weights", {"w": torch.ones(2)}, step=7)
        >>> manifest = read_manifest(place)
        >>> manifest.step, [(leaf.path, leaf.dtype, leaf.shape) for leaf in manifest.leaves]
        (7, [('w', 'float32', (2,))])
    """
    return retry_while_replaced(path, manifest_at)


def read_entry(path: str | Path) -> tuple[int | None, Entry]:
    """Read only step, metrics and time, quickly for any number of leaves."""

    def attempt(place: Path) -> tuple[int | None, Entry]:
        data = manifest_bytes(place)
        with manifest_errors(place):
            return parse_entry(data)

    return retry_while_replaced(path, attempt)


def locate(path: str | Path) -> Path:
    """Return the path of a checkpoint, or of its older version while it is being replaced."""
    place = absolute(path)
    with read_errors(place):
        return present(place)


def retry_while_replaced(path: str | Path, attempt: Callable[[Path], T]) -> T:
    """Read a checkpoint; retry if another process replaced it meanwhile.

    The last attempt locks the directory, so that writers have to wait for it.
    """
    for _ in range(_MOST_ATTEMPTS):
        place = locate(path)
        before = _identity(place)
        try:
            return attempt(place)
        except (CheckpointCorruptError, NoCheckpointError):
            # The same checkpoint may have moved, to make room for its replacement.
            if before is not None and place == locate(path) and before == _identity(place):
                raise
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # the directory does not exist or cannot be listed
            stack.enter_context(directory_lock(absolute(path).parent))
        return attempt(locate(path))


def _identity(place: Path) -> bytes | None:
    """Return the bytes that identify a checkpoint; inode numbers would be reused."""
    try:
        return manifest_bytes(place)
    except (CheckpointCorruptError, NoCheckpointError):
        return None


def manifest_at(place: Path) -> Manifest:
    """Read the manifest in a directory; another process may replace it meanwhile."""
    data = manifest_bytes(place)
    with manifest_errors(place):
        return parse(data)


def manifest_bytes(place: Path) -> bytes:
    if not place.is_dir():
        raise missing(place)
    with read_errors(place):
        try:
            return _contents(place / MANIFEST)
        except FileNotFoundError as error:
            if list_steps(place):
                raise missing(place) from error
            raise CheckpointCorruptError(f"{place} has no {MANIFEST}") from error


def _contents(path: Path) -> bytes:
    with opened(path) as descriptor:
        status = os.fstat(descriptor)
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointCorruptError(f"{path} is not a regular file")
        if size > _LARGEST_MANIFEST:
            raise CheckpointCorruptError(f"{path} is too long for a manifest: {size:,} bytes")
        data = bytearray(size)
        read = read_into(descriptor, memoryview(data), 0)
        return bytes(data[:read])


@contextlib.contextmanager
def manifest_errors(path: Path) -> Iterator[None]:
    """Translate errors of code that interprets a manifest.

    Of the user's code only tensor subclasses run in such a block; errors of attrs classes are
    translated where the classes are instantiated.
    """
    try:
        yield
    except FunctrainError as error:
        error.add_note(f"in {path / MANIFEST}")
        raise
    except _MALFORMED as error:
        raise CheckpointCorruptError(f"{path / MANIFEST} is damaged: {error}") from error


def read_errors(path: Path) -> contextlib.AbstractContextManager[None]:
    """Translate errors of code that reads files."""
    return system_errors(path, _read_error)


def _read_error(path: Path, error: OSError) -> FunctrainError:
    if error.errno in (errno.EIO, errno.ELOOP):
        return CheckpointCorruptError(f"{path} cannot be read: {error}")
    return CheckpointReadError(path, error)
