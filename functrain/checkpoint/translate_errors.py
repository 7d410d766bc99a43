"""Translate errors of the system and of malformed manifests into functrain's errors."""

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


@contextlib.contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Translate errors of code that reads files."""
    try:
        yield
    except FunctrainError:
        raise
    except OSError as error:
        if error.errno in (errno.EIO, errno.ELOOP):
            raise CheckpointCorruptError(f"{path} cannot be read: {error}") from error
        raise CheckpointReadError(path, error) from error
