"""Save one tree as one directory, from one process or from many ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from functrain.checkpoint.publishing import Write, write
from functrain.checkpoint.ranks import World, agree, own_group, world_of
from functrain.checkpoint.snapshot import Snapshot, snapshot
from functrain.errors.calls import explained
from functrain.errors.paths import absolute
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
    world = world_of(tree)
    options: dict[str, Any] = {"info": info, "step": step, "metrics": metrics, "frozen": frozen}
    snap = agree(world, partial(snapshot, tree, **options))
    final = absolute(path)
    with own_group(world) as own:
        return save_snapshot(own, snap, lambda write: write(final, overwrite=overwrite))


def save_snapshot(
    world: World | None,
    snap: Snapshot,
    run: Callable[[Write], Path],
    first: Callable[[], None] | None = None,
) -> Path:
    """Save a snapshot, alone or together with other ranks.

    Args:
        world: the ranks, in a process group that nothing else uses meanwhile; ``None`` if alone.
        snap: the snapshot of this rank. Rank 0 may have more leaves than the others, but no other
            rank may have leaves that rank 0 lacks.
        run: called on rank 0 with the function that writes the snapshot; locks, prunes and returns
            the path.
        first: called before anything is written.

    Returns:
        The path, on every rank.

    Raises:
        RankMismatchError: the ranks hold different states.
        DirectoryNotSharedError: a rank does not see the directory that rank 0 has created.
        RankFailedError: a rank was lost.
        The errors of :func:`functrain.checkpoint.save`, on every rank if one has an error; they
            name the rank.
    """
    if world is None:
        if first is not None:
            first()
        return run(partial(write, snap=snap))
    from functrain.checkpoint.together.saving import save_together  # one process needs no ranks

    return save_together(world, snap, run, first)
