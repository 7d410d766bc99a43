"""Saving: one tree, one directory."""

from __future__ import annotations

import errno
import os
import platform
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.checkpoint import payload
from functrain.checkpoint.commit import commit
from functrain.checkpoint.dtypes import dtype_name
from functrain.checkpoint.encoding import encode
from functrain.checkpoint.files import created, write_all
from functrain.checkpoint.layout import Layout, aliases, layouts, readable
from functrain.checkpoint.manifest import FORMAT, MANIFEST, Leaf, Manifest
from functrain.checkpoint.memory import preserved_stride
from functrain.errors import CheckpointExistsError, CheckpointSpaceError, CheckpointWriteError
from functrain.tree import Path as TreePath
from functrain.tree import Tree, path_string

_ROOM_PER_FILE = 4096
_ROOM_PER_LEAF = 512  # a generous guess at what a tensor adds to the manifest


def save(
    path: str | Path,
    tree: Tree,
    *,
    info: Any = None,
    step: int | None = None,
    metrics: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Save a tree as a directory, durably, wholly or not at all.

    When this returns, the checkpoint survives a power cut. When it raises, or the process is
    killed on the way, whatever was at ``path`` before is still there.

    Args:
        path: the directory to make.
        tree: dicts, lists, tuples and attrs instances of tensors and Python scalars. Tensors that
            are the same memory are saved once and load as one.
        info: plain data to keep beside it.
        step: updates made.
        metrics: numbers by name.
        overwrite: replace a checkpoint that is at ``path``; nothing else is ever replaced.

    Returns:
        The absolute path.

    Raises:
        UnsupportedLeafError: the tree holds what could not be given back exactly.
        CheckpointExistsError: something is at ``path`` that may not be replaced.
        CheckpointSpaceError: too little room; nothing was written.
        CheckpointWriteError: writing failed; nothing is left behind.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "weights"
        >>> _ = save(place, {"params": {"w": torch.ones(2)}, "note": "hello"})
        >>> sorted(file.name for file in place.iterdir())
        ['manifest.json', 'params.safetensors']
    """
    final = Path(path).absolute()
    structure, tensors = encode(tree)
    same = aliases(tensors)
    plan = layouts(tensors, same)
    draft = Manifest(FORMAT, _versions(), step, _numbers(metrics), info, structure, (), ())
    needed = len(draft.to_bytes()) + sum(layout.length + _ROOM_PER_FILE for layout in plan)
    try:
        _need_room(final, needed + _ROOM_PER_LEAF * len(tensors))
        commit(
            final,
            fill=lambda directory: _write(directory, draft, plan, tensors, same),
            check=lambda present: _refuse_foreign(present, overwrite),
        )
    except (CheckpointExistsError, CheckpointWriteError):
        raise
    except OSError as error:
        raise CheckpointWriteError(final, error) from error
    return final


def _write(
    directory: Path,
    draft: Manifest,
    plan: list[Layout],
    tensors: list[tuple[TreePath, Tensor]],
    same: list[int | None],
) -> None:
    written = [payload.write(directory, layout) for layout in plan]
    hashes = {index: each for _, found in written for index, each in found.items()}
    manifest = attrs.evolve(
        draft,
        files=tuple(file for file, _ in written),
        leaves=_leaves(tensors, same, plan, hashes),
    )
    with created(directory / MANIFEST) as descriptor:
        write_all(descriptor, manifest.to_bytes())


def _leaves(
    tensors: list[tuple[TreePath, Tensor]],
    same: list[int | None],
    plan: list[Layout],
    hashes: dict[int, tuple[str, ...]],
) -> tuple[Leaf, ...]:
    places = {part.index: (layout.name, part) for layout in plan for part in layout.parts}
    leaves: list[Leaf] = []
    for index, ((path, tensor), twin) in enumerate(zip(tensors, same, strict=True)):
        name = readable(path_string(path))
        if twin is not None:
            leaves.append(attrs.evolve(leaves[twin], path=name, alias_of=twin))
            continue
        file, part = places[index]
        leaf = Leaf(
            path=name,
            dtype=dtype_name(tensor.dtype),
            shape=tuple(tensor.shape),
            file=file,
            offset=part.offset,
            length=part.length,
            hashes=hashes[index],
            stride=preserved_stride(tensor),
            device=str(tensor.device),
        )
        leaves.append(leaf)
    return tuple(leaves)


def _versions() -> dict[str, str]:
    try:
        own = metadata.version("functrain")
    except metadata.PackageNotFoundError:
        own = "unknown"
    return {"functrain": own, "torch": torch.__version__, "python": platform.python_version()}


def _numbers(metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        name: value.item() if isinstance(value, Tensor) else value
        for name, value in (metrics or {}).items()
    }


def _refuse_foreign(path: Path, overwrite: bool) -> None:
    """Let nothing be replaced but a checkpoint, and that only when asked."""
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
        raise CheckpointExistsError(errno.EEXIST, f"{path} is a file, where a directory is to be")


def _need_room(path: Path, needed: int) -> None:
    existing = next(parent for parent in path.parents if parent.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        cause = OSError(errno.ENOSPC, f"it needs {needed:,} bytes, and {free:,} are free")
        raise CheckpointSpaceError(path, cause)
