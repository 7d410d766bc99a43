"""Save one tree as one directory, from one process or from many ranks.

Many ranks write the very files that one process writes, and every rank calls the same function.
Rank 0 alone holds locks, creates the directory, writes the manifest and renames; all ranks write
ranges of the payload, and rank 0 goes on only after each has synced its ranges. So a rank that is
killed at any time leaves the older or the newer checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import attrs
from xxhash import xxh3_128_hexdigest

from functrain.checkpoint import hard_links
from functrain.checkpoint.contents import Contents, Report, report
from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.format.placed import Holding
from functrain.checkpoint.format.records import File
from functrain.checkpoint.payload import Payload, Start, TroubleError, create_file, raise_first
from functrain.checkpoint.publishing import publish, write
from functrain.checkpoint.rank_errors import Trouble, agreed, own_group, world_of
from functrain.checkpoint.snapshot import Snapshot, snapshot
from functrain.checkpoint.storage.rounds import Failure
from functrain.distributed.group import World
from functrain.errors import RankFailedError
from functrain.errors.calls import explained
from functrain.errors.paths import absolute
from functrain.tree import Tree

_NOTHING: Any = None  # the argument of a broadcast from another rank


class Write(Protocol):
    """Writes the snapshot to a directory: ``publishing.write``, or its counterpart on ranks."""

    def __call__(self, path: Path, *, overwrite: bool, previous: Path | None = None) -> Path: ...


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
    snap = agreed(world, partial(snapshot, tree, **options))
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
    failure = Failure()
    with failure.caught():
        if first is not None:
            first()
    with world.failing_together():
        payload = Payload(world, snap, world.broadcast(Contents.of(snap)), failure)
        reports = world.gathered(report(world.rank, snap, payload.contents, failure))
        outcome = _lead(payload, run, reports) if world.rank == 0 else _follow(payload)
    if isinstance(outcome, Path):
        return outcome
    raise outcome.error() from failure.error


def _lead(payload: Payload, run: Callable[[Write], Path], reports: list[Report]) -> Path | Trouble:
    """Save on rank 0, and tell the others about the outcome."""
    outcome: Path | Trouble
    try:
        raise_first(each.trouble for each in reports)
        leaves, same = payload.contents.merged(reports)
        payload = attrs.evolve(payload, snap=attrs.evolve(payload.snap, same=same))
        outcome = run(partial(_write_together, payload, leaves))
    except TroubleError as error:
        outcome = error.trouble
    except RankFailedError:
        raise
    except Exception as error:  # not hidden: all ranks receive the outcome and raise it
        payload.failure.error = payload.failure.error or error
        outcome = Trouble.of(0, error)
    return payload.world.broadcast(outcome)


def _follow(payload: Payload) -> Path | Trouble:
    """Write the ranges of another rank, and return the outcome."""
    start = payload.world.broadcast(_NOTHING)
    if isinstance(start, Trouble):
        return start
    payload.write(start)
    outcome: Path | Trouble = payload.world.broadcast(_NOTHING)
    return outcome


def _write_together(
    payload: Payload,
    leaves: list[Holding],
    path: Path,
    *,
    overwrite: bool,
    previous: Path | None = None,
) -> Path:
    """Write on rank 0, with all ranks; ``leaves`` says which of them hold the bytes of each."""
    final, snap = path.absolute(), payload.snap
    plan = snap.plan()
    shared = hard_links.candidate(previous, plan)
    linkable = None if shared is None else shared.file.name

    def fill(directory: Path) -> Manifest:
        for layout in plan:
            if layout.name != linkable:
                create_file(directory, layout)
        start = Start(final, directory, plan, leaves, linkable)
        payload.world.broadcast(start)
        hashes = payload.write(start, shared)
        files = (
            File(each.name, each.length, len(each.header), xxh3_128_hexdigest(each.header))
            for each in plan
        )
        return snap.manifest(plan, tuple(files), hashes)

    publish(final, plan, fill, overwrite)
    return final
