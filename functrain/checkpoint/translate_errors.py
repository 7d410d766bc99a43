"""Which of our errors an error of the system or of a malformed manifest is."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from functrain.checkpoint.format.manifest import MANIFEST
from functrain.errors import CheckpointCorruptError, CheckpointReadError, FunctrainError

_MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError)


@contextlib.contextmanager
def manifest_errors(path: Path) -> Iterator[None]:
    """A block that reads what a manifest says.

    Of the caller's code only tensor subclasses run in it; attrs classes tell their own errors.

    Raises:
        CheckpointCorruptError: the manifest is malformed.
    """
    try:
        yield
    except FunctrainError as error:
        error.add_note(f"in {path / MANIFEST}")
        raise
    except _MALFORMED as error:
        raise CheckpointCorruptError(f"{path / MANIFEST} is damaged: {error}") from error


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """A block that reads files.

    Raises:
        CheckpointCorruptError: the disk is damaged.
        CheckpointReadError: the system refused.
    """
    try:
        yield
    except FunctrainError:
        raise
    except OSError as error:
        if error.errno in (errno.EIO, errno.ELOOP):
            raise CheckpointCorruptError(f"{path} cannot be read: {error}") from error
        raise CheckpointReadError(path, error) from error
