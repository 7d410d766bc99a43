"""Hard-link the file of frozen tensors from one checkpoint of a run to the next.

No file of a checkpoint is changed after the checkpoint has its name, so a hard link is as good as
a copy: each checkpoint stays complete when the other is removed.
"""

from __future__ import annotations

import os
from pathlib import Path

import attrs
from xxhash import xxh3_128_hexdigest

from functrain.checkpoint.format.layout import Layout
from functrain.checkpoint.format.records import File, Leaf
from functrain.checkpoint.manifest_file import manifest_at
from functrain.checkpoint.run_directory import list_steps, step_name
from functrain.checkpoint.storage import reading, writing
from functrain.checkpoint.storage.files import opened, sync
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointFormatError,
    CheckpointReadError,
    NoCheckpointError,
)

_NAME = "frozen.safetensors"
_UNREADABLE = (
    CheckpointCorruptError,
    CheckpointFormatError,
    CheckpointReadError,
    NoCheckpointError,
)


@attrs.frozen(eq=False)
class Shared:
    """A payload file of an earlier checkpoint that can be linked, according to its manifest.

    Its leaves cover all of it except the header; ``hashes`` are by index of the tensor to save.
    """

    directory: Path
    file: File
    leaves: list[Leaf]
    hashes: writing.Hashes


def newest(directory: Path, step: int) -> Path | None:
    """Return the newest checkpoint up to a step, which may be the one to be replaced."""
    earlier = [each for each in list_steps(directory) if each <= step]
    return directory / step_name(earlier[-1]) if earlier else None


def _candidate(previous: Path | None, plan: list[Layout]) -> Shared | None:
    """Return the file of an earlier checkpoint that holds tensors of the same names and sizes."""
    layout = next((each for each in plan if each.name == _NAME), None)
    # Through a symbolic link, a file outside of the run directory would become part of it.
    if layout is None or previous is None or previous.is_symlink():
        return None
    try:
        manifest = manifest_at(previous)
    except _UNREADABLE:
        return None
    file = File(_NAME, layout.length, len(layout.header), xxh3_128_hexdigest(layout.header))
    if file not in manifest.files:
        return None
    leaves = [leaf for leaf in manifest.leaves if leaf.file == _NAME and leaf.alias_of is None]
    # Match by offset: files with the same header have the same tensors there. Empty tensors have
    # no hashes.
    known = {(leaf.offset, leaf.offset + leaf.length): leaf.hashes for leaf in leaves}
    spans = zip(layout.offsets, layout.offsets[1:], strict=False)
    found = {index: known.get(span) for index, span in zip(layout.indices, spans, strict=True)}
    hashes = {index: each for index, each in found.items() if each is not None}
    return Shared(previous, file, leaves, hashes) if len(hashes) == len(found) else None


def find(previous: Path | None, plan: list[Layout], chunks: writing.Chunks) -> Shared | None:
    """Return the file of an earlier checkpoint with the same frozen tensors, for :func:`link`."""
    found = _candidate(previous, plan)
    if found is None:
        return None
    same = (writing.hash_chunks(chunks(index)) == each for index, each in found.hashes.items())
    return found if all(same) else None


def link(shared: Shared, directory: Path) -> bool:
    """Link the file into another directory, durably, and verify every byte of it.

    Returns ``False`` if the file must be written instead; then there is none in the directory.
    """
    place = directory / _NAME
    try:
        os.link(shared.directory / _NAME, place, follow_symlinks=False)
    except OSError:  # no links here, too many links, or another process pruned it
        return False
    try:
        _verify_and_sync(directory, shared)
    except (CheckpointCorruptError, OSError):
        os.unlink(place)
        return False
    return True


def _verify_and_sync(directory: Path, shared: Shared) -> None:
    # Read all of it: damage must not spread from one checkpoint to the next. Reading takes about
    # as long as writing and syncing; from the page cache, a third of that.
    # Read under the new name: the old name may refer to another file by now.
    reading.verify(directory, [shared.file], shared.leaves)
    with opened(directory / _NAME) as descriptor:
        # Its writer has synced it, but the run directory may have been copied since.
        sync(descriptor)
