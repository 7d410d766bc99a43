"""Save a snapshot on many ranks: rank 0 writes as one process does, the others send what it lacks.

Rank 0 leads: it broadcasts what it asks for, and at last the outcome. The others answer each
question, and go on when something fails in them, until rank 0 asks how it went.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
import torch.distributed as dist
from torch import Tensor

from functrain.checkpoint.format.placed import Holding
from functrain.checkpoint.format.records import CHUNK
from functrain.checkpoint.format.tensor_bytes import byte_range, memory
from functrain.checkpoint.publishing import Write, write
from functrain.checkpoint.ranks import Trouble, World
from functrain.checkpoint.snapshot import Snapshot
from functrain.checkpoint.storage.writing import Hashes, hash_chunks, one_by_one
from functrain.checkpoint.together.contents import Contents, Failure, Report, report
from functrain.errors import DirectoryNotSharedError, RankFailedError, RankMismatchError
from functrain.tree import path_string

_NOTHING: Any = None  # the argument of a broadcast from another rank
_WINDOW = 16 << 20  # bytes that rank 0 asks for at once
_SEEN_WITHIN = 5.0  # seconds until a network file system shows a new directory to other nodes


@attrs.frozen
class _Bytes:
    """Rank 0 asks for bytes of a leaf."""

    index: int
    first: int
    last: int


@attrs.frozen
class _Confirmation:
    """Rank 0 asks whether all is well, and says what it has written, and where."""

    directory: Path
    hashes: Hashes


class TroubleError(Exception):
    """Ends the work of rank 0 because of the trouble of a rank."""

    def __init__(self, trouble: Trouble) -> None:
        self.trouble = trouble


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
        contents = world.broadcast(Contents.of(snap))
        rank = _Rank(world, snap, contents, failure)
        reports = world.gathered(report(world.rank, snap, contents, failure))
        outcome = rank.lead(run, reports) if world.rank == 0 else rank.follow()
    if isinstance(outcome, Path):
        return outcome
    raise outcome.error() from failure.error


@attrs.frozen(eq=False)
class _Rank:
    """The part of one rank in a save; indices are those of the leaves of rank 0."""

    world: World
    snap: Snapshot
    contents: Contents
    failure: Failure
    tensors: dict[int, Tensor] = attrs.field(init=False)

    @tensors.default
    def _own_tensors(self) -> dict[int, Tensor]:
        own = dict(self.snap.tensors)
        return {i: own[path] for i, path in enumerate(self.contents.paths) if path in own}

    def lead(self, run: Callable[[Write], Path], reports: list[Report]) -> Path | Trouble:
        """Save on rank 0, and tell the others about the outcome."""
        outcome: Path | Trouble
        try:
            _raise_first([each.trouble for each in reports])
            snap = attrs.evolve(self.snap, same=self.contents.merge_aliases(reports))
            options: dict[str, Any] = {"chunks": self.chunks, "confirm": self.confirm}
            outcome = run(partial(write, snap=snap, **options))
        except TroubleError as error:
            outcome = error.trouble
        except RankFailedError:
            raise
        except Exception as error:  # not hidden: all ranks receive the outcome and raise it
            self.failure.error = self.failure.error or error
            outcome = Trouble.of(0, error)
        return self.world.broadcast(outcome)

    def follow(self) -> Path | Trouble:
        """Answer rank 0 until it tells the outcome."""
        while True:
            asked = self.world.broadcast(_NOTHING)
            if isinstance(asked, _Bytes):
                self._send(asked)
            elif isinstance(asked, _Confirmation):
                self._answer(asked)
            else:
                outcome: Path | Trouble = asked
                return outcome

    def chunks(self, index: int) -> Iterator[Iterator[memoryview]]:
        """Yield the bytes of a leaf in chunks, each in parts; other ranks send what is not here."""
        holding = self.contents.holdings[index]
        if all(0 in piece.ranks for piece in holding.pieces):
            yield from one_by_one(self.tensors[index])
            return
        for first in range(0, holding.nbytes, CHUNK):
            yield self._collect(index, first, min(first + CHUNK, holding.nbytes))

    def confirm(self, directory: Path, hashes: Hashes) -> None:
        """Raise if something is wrong on a rank, once all is written."""
        self.world.broadcast(_Confirmation(directory, hashes))
        _raise_first(self.world.gathered(None))

    def _collect(self, index: int, first: int, last: int) -> Iterator[memoryview]:
        holding, window = self.contents.holdings[index], bytearray(min(_WINDOW, last - first))
        for start in range(first, last, _WINDOW):
            asked = self.world.broadcast(_Bytes(index, start, min(start + _WINDOW, last)))
            whole = torch.frombuffer(window, dtype=torch.uint8)[: asked.last - start]
            for source, begin, end in _sources(holding, asked):
                part = whole[begin - start : end - start]
                if source == 0:
                    part.copy_(self._bytes(index, begin, end))
                else:
                    dist.recv(part, source, self.world.group)
            yield memory(whole)

    def _send(self, asked: _Bytes) -> None:
        for source, first, last in _sources(self.contents.holdings[asked.index], asked):
            if source == self.world.rank:
                part = torch.zeros(last - first, dtype=torch.uint8)
                with self.failure.caught():
                    part = self._bytes(asked.index, first, last)
                dist.send(part, 0, self.world.group)

    def _bytes(self, index: int, first: int, last: int) -> Tensor:
        begin = self.contents.holdings[index].begin(self.world.rank)
        return byte_range(self.tensors[index], first - begin, last - begin)

    def _answer(self, asked: _Confirmation) -> None:
        with self.failure.caught():
            _require_shared(asked.directory, self.world.rank)
            self.snap.confirm()
            self._compare_copies(asked.hashes)
        error = self.failure.error
        self.world.gathered(None if error is None else Trouble.of(self.world.rank, error))

    def _compare_copies(self, hashes: Hashes) -> None:
        """Compare the leaves that each rank holds whole with those of rank 0."""
        for index in hashes.keys() & self.tensors.keys() - self.contents.placed:
            if hash_chunks(one_by_one(self.tensors[index])) != hashes[index]:
                raise RankMismatchError(
                    f"{path_string(self.contents.paths[index])} is not the same on rank "
                    f"{self.world.rank} as on rank 0, so nothing was saved. Steps with equal "
                    "inputs keep copies equal: look for code that runs on some ranks only"
                )


def _sources(holding: Holding, asked: _Bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the pieces of what is asked for: (the rank that provides it, first byte, end)."""
    for piece in holding.pieces:
        first, last = max(piece.first, asked.first), min(piece.last, asked.last)
        if first < last:
            yield min(piece.ranks), first, last


def _raise_first(troubles: list[Trouble | None]) -> None:
    first = next((trouble for trouble in troubles if trouble is not None), None)
    if first is not None:
        raise TroubleError(first)


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
