"""Save one tree from many ranks, as the very files that one process writes.

Every rank calls the same function. Rank 0 alone holds locks, creates the directory, writes the
manifest and renames; all ranks write ranges of the payload, and rank 0 goes on only after each has
synced its ranges. So a rank that is killed at any time leaves the older or the newer checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
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
from functrain.checkpoint.publishing import publish
from functrain.checkpoint.rank_errors import Trouble, agree
from functrain.checkpoint.snapshot import Snapshot
from functrain.checkpoint.storage.rounds import Failure
from functrain.distributed.group import World
from functrain.errors import RankFailedError

_NOTHING: Any = None  # the argument of a broadcast from another rank


class Write(Protocol):
    """Writes the snapshot to a directory: ``saving.write``, or its counterpart on many ranks."""

    def __call__(self, path: Path, *, overwrite: bool, previous: Path | None = None) -> Path: ...


def take(world: World, snapshot: Callable[[], Snapshot]) -> Snapshot:
    """Take a snapshot on every rank; raise the error of the first that could not on all of them."""
    snap, error = None, None
    try:
        snap = snapshot()
    except Exception as failure:  # not hidden: agree raises it on all ranks
        error = failure
    agree(world, error)
    assert snap is not None
    return snap


def save(
    world: World,
    snap: Snapshot,
    run: Callable[[Write], Path],
    first: Callable[[], None] | None = None,
) -> Path:
    """Save a snapshot together with the other ranks.

    Args:
        world: the ranks, in a process group that nothing else uses meanwhile.
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
        outcome = run(partial(_write, payload, leaves))
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


def _write(
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
