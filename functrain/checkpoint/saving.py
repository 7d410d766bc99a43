"""Save one tree as one directory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from functrain.checkpoint import hard_links, together
from functrain.checkpoint.format.layout import Layout
from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.format.records import File
from functrain.checkpoint.hard_links import Shared
from functrain.checkpoint.publishing import publish
from functrain.checkpoint.rank_errors import own_group, world_of
from functrain.checkpoint.snapshot import Snapshot, snapshot
from functrain.checkpoint.storage import writing
from functrain.errors.calls import explained
from functrain.tree import Tree


@explained
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

    If ranks hold parts of the tree (``DTensor`` leaves), every rank calls this at the same time
    with the path of a directory that all of them see. The files are those that one process would
    write.

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
        >>> import tempfile, torch
        >>> place = Path(tempfile.mkdtemp()) / "weights"
        >>> _ = save(place, {"params": {"w": torch.ones(2)}, "note": "hello"})
        >>> sorted(file.name for file in place.iterdir())
        ['manifest.json', 'params.safetensors']
    """
    options: dict[str, Any] = {"info": info, "step": step, "metrics": metrics, "frozen": frozen}
    world = world_of(tree)
    if world is None:
        return write(path, snapshot(tree, **options), overwrite=overwrite)
    snap = together.take(world, partial(snapshot, tree, **options))
    final = Path(path).absolute()
    with own_group(world) as own:
        return together.save(own, snap, lambda write: write(final, overwrite=overwrite))


def write(
    path: str | Path, snap: Snapshot, *, overwrite: bool = False, previous: Path | None = None
) -> Path:
    """Write a snapshot; the second half of :func:`save`.

    Links the file of frozen tensors in ``previous`` instead, if it can and all bytes are the same.
    """
    final, plan = Path(path).absolute(), snap.plan()
    shared = hard_links.find(previous, plan, snap.tensors)
    linked = shared.file.name if shared else None

    def fill(directory: Path) -> Manifest:
        files, hashes = _payload(directory, snap, plan, shared)
        # The payload is on disk now; fail if a tensor was changed in place while it was written.
        snap.confirm()
        return snap.manifest(plan, files, hashes)

    publish(final, [each for each in plan if each.name != linked], fill, overwrite)
    return final


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
