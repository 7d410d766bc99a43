"""Publish a checkpoint under its final name, if there is room and nothing foreign is replaced."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from functrain.checkpoint.format.layout import Layout
from functrain.checkpoint.format.manifest import MANIFEST, Manifest
from functrain.checkpoint.storage.commit import commit
from functrain.checkpoint.storage.files import created, write_all
from functrain.errors import CheckpointExistsError, CheckpointWriteError, FunctrainError

_ROOM_PER_FILE = 4096
_ROOM_PER_LEAF = 512  # generous estimate of a tensor's share of headers and manifest


def publish(
    final: Path, plan: list[Layout], fill: Callable[[Path], Manifest], overwrite: bool
) -> None:
    """Create a checkpoint, or replace one, atomically and durably.

    ``fill`` writes and syncs the payload in a given directory, and returns the manifest.
    """

    def write(directory: Path) -> None:
        manifest = fill(directory)
        # Last: a directory without a manifest is never taken for a checkpoint.
        with created(directory / MANIFEST) as descriptor:
            write_all(descriptor, manifest.to_bytes())

    try:
        _need_room(final, _room(plan))
        commit(final, fill=write, check=lambda present: _refuse_foreign(present, overwrite))
    except FunctrainError:
        raise
    except OSError as error:
        raise CheckpointWriteError(final, error) from error


def _refuse_foreign(path: Path, overwrite: bool) -> None:
    """Raise unless ``path`` is free, or a checkpoint that may be overwritten."""
    if path.is_dir():
        names = os.listdir(path)
        foreign = [name for name in names if name != MANIFEST and not name.endswith(".safetensors")]
        if not names or (overwrite and MANIFEST in names and not foreign):
            return
        reason = f"holds {foreign[0]!r}, so it is" if foreign else "exists; it is"
        hint = (
            "not replaced" if foreign or MANIFEST not in names else "replaced with overwrite=True"
        )
        raise CheckpointExistsError(errno.EEXIST, f"{path} {reason} {hint}")
    if path.exists() or path.is_symlink():
        raise CheckpointExistsError(errno.EEXIST, f"{path} is a file, not a directory")


def _room(plan: list[Layout]) -> int:
    """Estimate the size of the files in bytes."""
    return sum(
        layout.length + _ROOM_PER_FILE + _ROOM_PER_LEAF * len(layout.indices) for layout in plan
    )


def _need_room(path: Path, needed: int) -> None:
    # Look at the parent directory: another process may be replacing the final name right now.
    parent = path.parent
    existing = next(place for place in (parent, *parent.parents) if place.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        cause = OSError(errno.ENOSPC, f"it needs {needed:,} bytes, and {free:,} are free")
        raise CheckpointWriteError(path, cause)
