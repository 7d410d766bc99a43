"""Write the payload of one save on one rank: its ranges of each file, synced and compared."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from torch import Tensor

from functrain.checkpoint import hard_links
from functrain.checkpoint.format.layout import Layout
from functrain.checkpoint.format.placed import Holding
from functrain.checkpoint.format.records import CHUNK
from functrain.checkpoint.hard_links import Shared
from functrain.checkpoint.ranks import Trouble
from functrain.checkpoint.snapshot import Snapshot
from functrain.checkpoint.storage import writing
from functrain.checkpoint.storage.files import create, preallocate
from functrain.checkpoint.together.contents import Contents
from functrain.checkpoint.together.rounds import ChunkHashes, Failure, Rounds
from functrain.errors import (
    CheckpointWriteError,
    DirectoryNotSharedError,
    FunctrainError,
    RankMismatchError,
)
from functrain.tree import path_string

if TYPE_CHECKING:
    from functrain.distributed.group import World

_SEEN_WITHIN = 5.0  # seconds until a network file system shows a new directory to other nodes


@attrs.frozen(eq=False)
class Start:
    """The files to write, the place, and the holders of each leaf.

    Attributes:
        leaves: which ranks hold the bytes of each leaf.
        linkable: name of a file that is linked if its bytes have not changed.
    """

    final: Path
    directory: Path
    plan: list[Layout]
    leaves: list[Holding]
    linkable: str | None


@attrs.frozen(eq=False)
class Payload:
    """The part of one rank in a save."""

    world: World
    snap: Snapshot
    contents: Contents
    failure: Failure

    def write(self, start: Start, shared: Shared | None = None) -> writing.Hashes:
        """Write and sync the ranges of this rank; return the hashes of all leaves.

        Raises:
            TroubleError: on rank 0, if a rank has an error; the others hear of it later.
        """
        own = dict(self.snap.tensors)
        tensors = {i: own[path] for i, path in enumerate(self.contents.paths) if path in own}
        found: ChunkHashes = {}
        with Rounds(self.world, start.leaves, tensors, self.failure) as rounds:
            with self.failure.caught():
                _require_shared(start.directory, self.world.rank)
            for layout in start.plan:
                if layout.name == start.linkable:
                    linked = self._linked(rounds, layout, start.directory, shared)
                    found |= linked or {}
                    if linked is not None:
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
        raise_first(trouble for trouble, _ in every)
        return _merged(start.plan, [hashes for _, hashes in every])

    def _linked(
        self, rounds: Rounds, layout: Layout, directory: Path, shared: Shared | None
    ) -> ChunkHashes | None:
        """Link a file if its bytes have not changed, and return its hashes; else create it."""
        hashes, failed = rounds.run(layout, None)
        every, linked = self.world.gathered(hashes), False
        with self.failure.caught():
            if shared is not None:  # on rank 0
                same = not failed and _merged([layout], every) == shared.hashes
                linked = same and hard_links.link(shared, directory)
                if not linked:
                    create_file(directory, layout)
        return hashes if self.world.broadcast(linked) else None

    def _compare_copies(self, tensors: Mapping[int, Tensor], start: Start) -> None:
        """Compare the leaves that each rank holds whole with those of rank 0."""
        copies = [i for layout in start.plan for i in layout.indices]
        copies = [i for i in copies if i in tensors and i not in self.contents.placed]
        found: writing.Hashes = {}
        with self.failure.caught():
            if self.failure.error is None:
                found = {index: writing.hash_chunks(tensors[index]) for index in copies}
        expected = self.world.broadcast(found)
        with self.failure.caught():
            for index in copies if found and expected else ():
                if found[index] != expected[index]:
                    raise RankMismatchError(
                        f"{path_string(self.contents.paths[index])} is not the same on rank "
                        f"{self.world.rank} as on rank 0, so nothing was saved. Steps with equal "
                        "inputs keep copies equal: look for code that runs on some ranks only"
                    )


class TroubleError(Exception):
    """Ends the work of rank 0 because of the trouble of a rank."""

    def __init__(self, trouble: Trouble) -> None:
        self.trouble = trouble


def raise_first(troubles: Iterable[Trouble | None]) -> None:
    """Raise the first trouble of a rank, on rank 0."""
    first = next((trouble for trouble in troubles if trouble is not None), None)
    if first is not None:
        raise TroubleError(first)


def create_file(directory: Path, layout: Layout) -> None:
    """Create the file of a layout with its full length, for ranks to write their ranges."""
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
