"""Sharing: what does not change is one file, under a name in every checkpoint of a run.

A checkpoint is never changed once it has its name, so a hard link to a file of an earlier one is
as good as a copy: each stays whole when the other goes.
"""

from __future__ import annotations

import os
from pathlib import Path

import attrs
from torch import Tensor
from xxhash import xxh3_128_hexdigest

from functrain.checkpoint.format.layout import Layout
from functrain.checkpoint.format.records import File, Leaf
from functrain.checkpoint.loading import manifest_at
from functrain.checkpoint.run_directory import list_steps, step_name
from functrain.checkpoint.storage import reading, writing
from functrain.checkpoint.storage.files import opened, sync
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointFormatError,
    CheckpointReadError,
    NoCheckpointError,
)
from functrain.tree import Path as TreePath

_NAME = "frozen.safetensors"
_UNREADABLE = (
    CheckpointCorruptError,
    CheckpointFormatError,
    CheckpointReadError,
    NoCheckpointError,
)


@attrs.frozen(eq=False)
class Shared:
    """A payload file that an earlier checkpoint has, as far as its manifest says.

    Attributes:
        directory: of the earlier checkpoint.
        file: the record of the file.
        leaves: the records of what is in it; they cover all of it but the header.
        hashes: of the tensors to be saved, by index; the same as in the records.
    """

    directory: Path
    file: File
    leaves: list[Leaf]
    hashes: writing.Hashes


def newest(directory: Path, step: int) -> Path | None:
    """The newest checkpoint of a run directory up to a step; it may be the one to be replaced."""
    earlier = [each for each in list_steps(directory) if each <= step]
    return directory / step_name(earlier[-1]) if earlier else None


def find(
    previous: Path | None, plan: list[Layout], tensors: list[tuple[TreePath, Tensor]]
) -> Shared | None:
    """Look whether an earlier checkpoint has the frozen tensors as they are now.

    Args:
        previous: its directory; ``None`` finds nothing.
        plan: what goes to which file.
        tensors: all tensors with their paths.

    Returns:
        What :func:`link` takes; ``None`` if the file is to be written.
    """
    layout = next((each for each in plan if each.name == _NAME), None)
    # A link elsewhere would make a file outside of the run directory part of it.
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
    hashes = _hashes(leaves, layout, tensors)
    return None if hashes is None else Shared(previous, file, leaves, hashes)


def link(shared: Shared, directory: Path) -> bool:
    """Give the file a name in another directory too, durably, and make sure of every byte of it.

    Args:
        shared: what :func:`find` has found.
        directory: of the checkpoint being written.

    Returns:
        Whether it is there. If not, nothing is there: it is to be written.

    Raises:
        OSError: what was linked and is not as it should be could not be removed.
    """
    place = directory / _NAME
    try:
        os.link(shared.directory / _NAME, place, follow_symlinks=False)
    except OSError:  # no links here, too many, not ours, or let go by another process meanwhile
        return False
    try:
        _make_sure(directory, shared)
    except (CheckpointCorruptError, OSError):
        os.unlink(place)
        return False
    return True


def _make_sure(directory: Path, shared: Shared) -> None:
    # All of it is read, as damage must not be carried over from one checkpoint to the next.
    # From the disk that takes about as long as to write and sync it, from the cache a third.
    # The linked name is read: where it was linked from, another file may stand by now.
    reading.verify(directory, [shared.file], shared.leaves)
    with opened(directory / _NAME) as descriptor:
        # Its own writer has synced it, but a run directory may have been copied since.
        sync(descriptor)


def _hashes(
    leaves: list[Leaf], layout: Layout, tensors: list[tuple[TreePath, Tensor]]
) -> writing.Hashes | None:
    """The hashes of the tensors of a file; ``None`` if the records have others."""
    # By place: files of the same header have the same tensors there. Empty ones have no hashes.
    expected = {(leaf.offset, leaf.length): leaf.hashes for leaf in leaves}
    found: writing.Hashes = {}
    for index, offset in zip(layout.indices, layout.offsets, strict=False):
        tensor = tensors[index][1]
        found[index] = writing.hashes(tensor)
        if found[index] != expected.get((offset, tensor.nbytes)):
            return None  # the rest need not be looked at
    return found
