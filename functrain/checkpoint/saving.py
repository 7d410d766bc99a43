"""Save one tree as one directory."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
import torch

from functrain.checkpoint import hard_links
from functrain.checkpoint.format.dtypes import dtype_name
from functrain.checkpoint.format.encoding import decode
from functrain.checkpoint.format.layout import Layout, layouts
from functrain.checkpoint.format.manifest import FORMAT, MANIFEST, Manifest
from functrain.checkpoint.format.records import File, Leaf
from functrain.checkpoint.format.tensor_bytes import preserved_stride
from functrain.checkpoint.hard_links import Shared
from functrain.checkpoint.snapshot import Snapshot, snapshot
from functrain.checkpoint.storage import writing
from functrain.checkpoint.storage.commit import commit
from functrain.checkpoint.storage.files import created, write_all
from functrain.errors import CheckpointExistsError, CheckpointWriteError
from functrain.tree import Tree

_ROOM_PER_FILE = 4096
_ROOM_PER_LEAF = 512  # generous estimate of a tensor's share of headers and manifest


def save(
    path: str | Path,
    tree: Tree,
    *,
    info: Any = None,
    step: int | None = None,
    metrics: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    frozen: Iterable[str] = (),
) -> Path:
    """Save a tree as a directory, atomically and durably.

    Once this returns, the checkpoint survives a power cut. If it raises, or the process is killed
    before, the previous content of ``path`` is still there.

    Args:
        path: the directory to create.
        tree: dicts, lists, tuples and attrs instances of tensors and Python scalars. Tensors that
            are views of the same memory are saved once and load as one.
        info: plain data to store with it.
        step: updates made.
        metrics: numbers by name.
        overwrite: replace an existing checkpoint at ``path``; nothing else is ever replaced.
        frozen: dotted paths of tensors that never change; they go to a separate file.

    Returns:
        The absolute path.

    Raises:
        UnsupportedError: the tree has a leaf that could not be restored exactly.
        CheckpointExistsError: ``path`` exists and may not be replaced.
        CheckpointWriteError: writing failed or disk space is short; nothing is left behind.
        CheckpointChangedError: another thread changed a tensor meanwhile; nothing is left behind.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "weights"
        >>> _ = save(place, {"params": {"w": torch.ones(2)}, "note": "hello"})
        >>> sorted(file.name for file in place.iterdir())
        ['manifest.json', 'params.safetensors']
    """
    snap = snapshot(tree, info=info, step=step, metrics=metrics, frozen=frozen)
    return write(path, snap, overwrite=overwrite)


def write(
    path: str | Path, snap: Snapshot, *, overwrite: bool = False, previous: Path | None = None
) -> Path:
    """Write a snapshot; the second half of :func:`save`.

    Args:
        path: the directory to create.
        snap: the snapshot.
        overwrite: replace an existing checkpoint at ``path``.
        previous: an earlier checkpoint in the same directory. Its file of frozen tensors is linked
            instead of written if the file system can and all bytes are the same.
    """
    final = Path(path).absolute()
    plan = layouts(snap.tensors, snap.names, snap.same, snap.frozen)
    try:
        shared = hard_links.find(previous, plan, snap.tensors)
        linked = shared.file.name if shared else None
        _need_room(final, _room(snap, [each for each in plan if each.name != linked]))
        commit(
            final,
            fill=lambda directory: _fill(directory, snap, plan, shared),
            check=lambda present: _refuse_foreign(present, overwrite),
        )
    except (CheckpointExistsError, CheckpointWriteError):
        raise
    except OSError as error:
        raise CheckpointWriteError(final, error) from error
    return final


def _fill(directory: Path, snap: Snapshot, plan: list[Layout], shared: Shared | None) -> None:
    files, hashes = _payload(directory, snap, plan, shared)
    # The payload is on disk now; fail if a tensor was changed in place while it was written.
    snap.confirm()
    manifest = Manifest(
        format=FORMAT,
        versions=_versions(),
        saved_at=time.time(),
        step=snap.step,
        metrics=decode(snap.metrics, []),
        info=decode(snap.info, []),
        structure=snap.structure,
        leaves=_leaves(snap, plan, hashes),
        files=files,
    )
    # Last: a directory without a manifest is never taken for a checkpoint.
    with created(directory / MANIFEST) as descriptor:
        write_all(descriptor, manifest.to_bytes())


def _payload(
    directory: Path, snap: Snapshot, plan: list[Layout], shared: Shared | None
) -> tuple[tuple[File, ...], writing.Hashes]:
    """Write the payload files, or link the one that has not changed."""
    if shared is None or not hard_links.link(shared, directory):
        return writing.write(directory, plan, snap.tensors)
    rest = [layout for layout in plan if layout.name != shared.file.name]
    written, hashes = writing.write(directory, rest, snap.tensors)
    by_name = {file.name: file for file in (*written, shared.file)}
    return tuple(by_name[layout.name] for layout in plan), {**hashes, **shared.hashes}


def _leaves(
    snap: Snapshot, plan: list[Layout], hashes: dict[int, tuple[str, ...]]
) -> tuple[Leaf, ...]:
    places = {
        index: (layout.name, offset)
        for layout in plan
        for index, offset in zip(layout.indices, layout.offsets, strict=False)
    }
    leaves: list[Leaf] = []
    for index, ((_, tensor), name, first) in enumerate(
        zip(snap.tensors, snap.names, snap.same, strict=True)
    ):
        if first is not None:
            leaves.append(attrs.evolve(leaves[first], path=name, alias_of=first))
            continue
        file, offset = places[index]
        leaf = Leaf(
            path=name,
            dtype=dtype_name(tensor.dtype),
            shape=tuple(tensor.shape),
            file=file,
            offset=offset,
            length=tensor.nbytes,
            hashes=hashes[index],
            stride=preserved_stride(tensor),
            device=snap.devices[index],
        )
        leaves.append(leaf)
    return tuple(leaves)


def _versions() -> dict[str, str]:
    try:
        own = metadata.version("functrain")
    except metadata.PackageNotFoundError:
        own = "unknown"
    return {"functrain": own, "torch": torch.__version__, "python": platform.python_version()}


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


def _room(snap: Snapshot, plan: list[Layout]) -> int:
    """Estimate the size of the files in bytes."""
    files = sum(layout.length + _ROOM_PER_FILE for layout in plan)
    return files + _ROOM_PER_LEAF * len(snap.tensors)


def _need_room(path: Path, needed: int) -> None:
    # Look at the parent directory: another process may be replacing the final name right now.
    parent = path.parent
    existing = next(place for place in (parent, *parent.parents) if place.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        cause = OSError(errno.ENOSPC, f"it needs {needed:,} bytes, and {free:,} are free")
        raise CheckpointWriteError(path, cause)
