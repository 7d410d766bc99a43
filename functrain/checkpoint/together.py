"""Save one tree from many ranks, as the very files that one process writes.

Every rank calls the same function. Rank 0 alone holds locks, creates the directory, writes the
manifest and renames; all ranks write ranges of the payload, and rank 0 goes on only after each has
synced its ranges. So a rank that is killed at any time leaves the older or the newer checkpoint.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import attrs
from torch import Tensor
from xxhash import xxh3_128_hexdigest

from functrain.checkpoint import hard_links
from functrain.checkpoint.agreement import Trouble, agree
from functrain.checkpoint.contents import Contents, Report, report
from functrain.checkpoint.format.layout import Layout
from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.format.placed import Holding
from functrain.checkpoint.format.records import CHUNK, File
from functrain.checkpoint.hard_links import Shared
from functrain.checkpoint.publishing import publish
from functrain.checkpoint.snapshot import Snapshot
from functrain.checkpoint.storage import writing
from functrain.checkpoint.storage.files import create, preallocate
from functrain.checkpoint.storage.rounds import ChunkHashes, Failure, Rounds
from functrain.distributed.group import World
from functrain.errors import (
    CheckpointWriteError,
    DirectoryNotSharedError,
    FunctrainError,
    RankFailedError,
    RankMismatchError,
)
from functrain.tree import path_string

_NOTHING: Any = None  # the argument of a broadcast from another rank
_SEEN_WITHIN = 5.0  # seconds until a network file system shows a new directory to other nodes


class Write(Protocol):
    """Writes the snapshot to a directory: ``saving.write``, or its counterpart on many ranks."""

    def __call__(self, path: Path, *, overwrite: bool, previous: Path | None = None) -> Path: ...


@attrs.frozen(eq=False)
class _Start:
    """The files to write, the place, and the holders of each leaf.

    Attributes:
        final: the directory to create.
        directory: the temporary directory.
        plan: the layout of each file.
        leaves: which ranks hold the bytes of each leaf.
        linkable: name of a file that is linked if its bytes have not changed.
    """

    final: Path
    directory: Path
    plan: list[Layout]
    leaves: list[Holding]
    linkable: str | None


def take(world: World, snapshot: Callable[[], Snapshot]) -> Snapshot:
    """Take a snapshot on every rank.

    Raises:
        The error of the first rank that could not, on every rank.
    """
    snap, error = None, None
    try:
        snap = snapshot()
    except Exception as failure:
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
        The errors of :func:`functrain.checkpoint.save`, on every rank if one has an error.
    """
    failure = Failure()
    with failure.caught():
        if first is not None:
            first()
    with world.failing_together():
        contents = world.broadcast(Contents.of(snap))
        reports = world.gathered(report(world.rank, snap, contents, failure))
        writer = _Writer(world, snap, contents, failure)
        outcome = writer.lead(run, reports) if world.rank == 0 else writer.follow()
    if isinstance(outcome, Path):
        return outcome
    raise failure.error or outcome.error()


@attrs.define(eq=False)
class _Writer:
    """One save on one rank.

    Attributes:
        world: the ranks.
        snap: the snapshot of this rank.
        contents: the leaves of rank 0.
        failure: the first exception of this rank.
        leaves: which ranks hold the bytes of each leaf, on rank 0.
        shared: a file that may be linked, on rank 0.
    """

    world: World
    snap: Snapshot
    contents: Contents
    failure: Failure
    leaves: list[Holding] = attrs.field(factory=list)
    shared: Shared | None = None

    def lead(self, run: Callable[[Write], Path], reports: list[Report]) -> Path | Trouble:
        """Save on rank 0, and tell the others about the outcome."""
        outcome: Path | Trouble
        try:
            _raise_first(each.trouble for each in reports)
            self.leaves, same = self.contents.merged(reports)
            self.snap = attrs.evolve(self.snap, same=same)
            outcome = run(self._write)
        except _TroubleError as error:
            outcome = error.trouble
        except RankFailedError:
            raise
        except Exception as error:
            self.failure.error = self.failure.error or error
            outcome = Trouble.of(0, error)
        return self.world.broadcast(outcome)

    def follow(self) -> Path | Trouble:
        """Write the ranges of another rank, and return the outcome."""
        start = self.world.broadcast(_NOTHING)
        if isinstance(start, Trouble):
            return start
        self._payload(start)
        outcome: Path | Trouble = self.world.broadcast(_NOTHING)
        return outcome

    def _write(self, path: Path, *, overwrite: bool, previous: Path | None = None) -> Path:
        final, plan = path.absolute(), self.snap.plan()
        self.shared = hard_links.candidate(previous, plan)
        linkable = None if self.shared is None else self.shared.file.name

        def fill(directory: Path) -> Manifest:
            for layout in plan:
                if layout.name != linkable:
                    _create(directory, layout)
            start = _Start(final, directory, plan, self.leaves, linkable)
            self.world.broadcast(start)
            hashes = self._payload(start)
            files = (
                File(each.name, each.length, len(each.header), xxh3_128_hexdigest(each.header))
                for each in plan
            )
            return self.snap.manifest(plan, tuple(files), hashes)

        publish(final, plan, fill, overwrite)
        return final

    def _payload(self, start: _Start) -> writing.Hashes:
        """Write and sync the ranges of this rank; return the hashes of all leaves.

        Raises:
            _TroubleError: on rank 0, if a rank has an error; the others hear of it later.
        """
        own = dict(self.snap.tensors)
        tensors = {i: own[path] for i, path in enumerate(self.contents.paths) if path in own}
        found: ChunkHashes = {}
        with Rounds(self.world, start.leaves, tensors, self.failure) as rounds:
            with self.failure.caught():
                _require_shared(start.directory, self.world.rank)
            for layout in start.plan:
                if layout.name == start.linkable and self._linked(rounds, layout, start, found):
                    continue
                hashes, failed = rounds.run(layout, start.directory)
                found |= hashes
                if failed:
                    break
        with self.failure.caught():
            self.snap.confirm()
        self._compare_copies(tensors, start)
        error = self.failure.error
        if isinstance(error, OSError) and not isinstance(error, FunctrainError):
            error = self.failure.error = CheckpointWriteError(start.final, error)
        trouble = None if error is None else Trouble.of(self.world.rank, error)
        every = self.world.gathered((trouble, found))
        if self.world.rank != 0:
            return {}
        _raise_first(trouble for trouble, _ in every)
        return _merged(start.plan, [hashes for _, hashes in every])

    def _linked(self, rounds: Rounds, layout: Layout, start: _Start, found: ChunkHashes) -> bool:
        """Link the file of frozen tensors if its bytes have not changed; otherwise create it."""
        hashes, _ = rounds.run(layout, None)
        every, linked = self.world.gathered(hashes), False
        with self.failure.caught():
            if self.shared is not None:
                same = _merged([layout], every) == self.shared.hashes
                linked = same and hard_links.link(self.shared, start.directory)
                if not linked:
                    _create(start.directory, layout)
        if self.world.broadcast(linked):
            found |= hashes
            return True
        return False

    def _compare_copies(self, tensors: Mapping[int, Tensor], start: _Start) -> None:
        """Compare the leaves that each rank holds whole with those of rank 0."""
        copies = [i for layout in start.plan for i in layout.indices]
        copies = [i for i in copies if i in tensors and i not in self.contents.placed]
        found: writing.Hashes = {}
        with self.failure.caught():
            if self.failure.error is None:
                found = {index: writing.hashes(tensors[index]) for index in copies}
        expected = self.world.broadcast(found)
        with self.failure.caught():
            for index in copies if found and expected else ():
                if found[index] != expected[index]:
                    raise RankMismatchError(
                        f"{path_string(self.contents.paths[index])} is not the same on rank "
                        f"{self.world.rank} as on rank 0, so nothing was saved. Steps with equal "
                        "inputs keep copies equal: look for code that runs on some ranks only"
                    )


class _TroubleError(Exception):
    """Ends the work of rank 0 because of the trouble of a rank."""

    def __init__(self, trouble: Trouble) -> None:
        self.trouble = trouble


def _raise_first(troubles: Iterable[Trouble | None]) -> None:
    first = next((trouble for trouble in troubles if trouble is not None), None)
    if first is not None:
        raise _TroubleError(first)


def _create(directory: Path, layout: Layout) -> None:
    descriptor = create(directory / layout.name)
    try:
        preallocate(descriptor, layout.length)
    finally:
        os.close(descriptor)


def _merged(plan: list[Layout], every: list[ChunkHashes]) -> writing.Hashes:
    """Return the hashes of each leaf, of which ranks have found some chunks."""
    chunks = {key: digest for hashes in every for key, digest in hashes.items()}
    found: writing.Hashes = {}
    for layout in plan:
        spans = zip(layout.indices, layout.offsets, layout.offsets[1:], strict=False)
        for index, first, last in spans:
            count = -(-(last - first) // CHUNK)
            found[index] = tuple(chunks[index, number] for number in range(count))
    return found


def _require_shared(directory: Path, rank: int) -> None:
    # Its name has a random part, so a directory of that name is that of rank 0.
    deadline = time.monotonic() + _SEEN_WITHIN
    while not directory.is_dir():
        if time.monotonic() > deadline:
            raise DirectoryNotSharedError(
                errno.ENOENT,
                f"rank {rank} on {socket.gethostname()} does not see what rank 0 creates in "
                f"{directory.parent}. Save to a file system that every node mounts at this path",
            )
        time.sleep(0.05)
