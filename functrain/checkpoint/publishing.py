"""Write a snapshot under its final name, if there is room and nothing foreign is replaced."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from functrain.checkpoint import hard_links
from functrain.checkpoint.format.layout import Layout
from functrain.checkpoint.format.manifest import MANIFEST, Manifest
from functrain.checkpoint.format.records import File
from functrain.checkpoint.hard_links import Shared
from functrain.checkpoint.snapshot import Snapshot
from functrain.checkpoint.storage import writing
from functrain.checkpoint.storage.commit import commit
from functrain.checkpoint.storage.files import created, system_errors, write_all
from functrain.errors import CheckpointExistsError, CheckpointWriteError

_ROOM_PER_FILE = 4096
_ROOM_PER_LEAF = 512  # generous estimate of a tensor's share of headers and manifest


class Write(Protocol):
    """Writes the snapshot to a directory: ``write``, or its counterpart on ranks."""

    def __call__(self, path: Path, *, overwrite: bool, previous: Path | None = None) -> Path: ...


def write(
    path: str | Path,
    snap: Snapshot,
    *,
    overwrite: bool = False,
    previous: Path | None = None,
    chunks: writing.Chunks | None = None,
    confirm: Callable[[Path, writing.Hashes], None] | None = None,
) -> Path:
    """Write a snapshot; the second half of :func:`functrain.checkpoint.save`.

    Links the file of frozen tensors in ``previous`` instead, if it can and all bytes are the same.
    If this process does not hold all of the bytes, ``chunks`` provides them, and ``confirm`` raises
    if what was written in a directory is not what others hold.
    """
    final, plan = Path(path).absolute(), snap.plan()
    source = chunks or (lambda index: writing.one_by_one(snap.tensors[index][1]))
    shared = hard_links.find(previous, plan, source)
    linked = shared.file.name if shared else None

    def fill(directory: Path) -> Manifest:
        files, hashes = _payload(directory, plan, source, shared)
        # The payload is on disk now; fail if a tensor was changed in place while it was written.
        snap.confirm()
        if confirm is not None:
            confirm(directory, hashes)
        return snap.manifest(plan, files, hashes)

    _publish(final, [each for each in plan if each.name != linked], fill, overwrite)
    return final


def _payload(
    directory: Path, plan: list[Layout], chunks: writing.Chunks, shared: Shared | None
) -> tuple[tuple[File, ...], writing.Hashes]:
    """Write the payload files, or link the one that has not changed."""
    if shared is None or not hard_links.link(shared, directory):
        return writing.write(directory, plan, chunks)
    rest = [layout for layout in plan if layout.name != shared.file.name]
    written, hashes = writing.write(directory, rest, chunks)
    by_name = {file.name: file for file in (*written, shared.file)}
    return tuple(by_name[layout.name] for layout in plan), {**hashes, **shared.hashes}


def _publish(
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

    with system_errors(final, CheckpointWriteError):
        _need_room(final, plan)
        commit(final, fill=write, check=lambda present: _refuse_foreign(present, overwrite))


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


def _need_room(path: Path, plan: list[Layout]) -> None:
    needed = sum(
        layout.length + _ROOM_PER_FILE + _ROOM_PER_LEAF * len(layout.indices) for layout in plan
    )
    # Look at the parent directory: another process may be replacing the final name right now.
    parent = path.parent
    existing = next(place for place in (parent, *parent.parents) if place.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        cause = OSError(errno.ENOSPC, f"it needs {needed:,} bytes, and {free:,} are free")
        raise CheckpointWriteError(path, cause)
