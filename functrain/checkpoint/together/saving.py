"""Save a snapshot on many ranks: rank 0 leads, the others follow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from xxhash import xxh3_128_hexdigest

from functrain.checkpoint import hard_links
from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.format.placed import Holding
from functrain.checkpoint.format.records import File
from functrain.checkpoint.publishing import Write, publish
from functrain.checkpoint.ranks import Trouble
from functrain.checkpoint.snapshot import Snapshot
from functrain.checkpoint.together.contents import Contents, Report, report
from functrain.checkpoint.together.payload import (
    Payload,
    Start,
    TroubleError,
    create_file,
    raise_first,
)
from functrain.checkpoint.together.rounds import Failure
from functrain.errors import RankFailedError

if TYPE_CHECKING:
    from functrain.distributed.group import World

_NOTHING: Any = None  # the argument of a broadcast from another rank


def save_together(
    world: World,
    snap: Snapshot,
    run: Callable[[Write], Path],
    first: Callable[[], None] | None = None,
) -> Path:
    """Save a snapshot of which each rank holds parts; see ``save_snapshot``."""
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
