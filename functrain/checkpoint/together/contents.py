"""Compare the leaves that ranks are about to save together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import attrs

from functrain.checkpoint.format.dtypes import dtype_name
from functrain.checkpoint.format.placed import Holding, Piece
from functrain.checkpoint.ranks import Trouble
from functrain.checkpoint.snapshot import Snapshot
from functrain.errors import RankMismatchError
from functrain.tree import Path, path_string


@attrs.define
class Failure:
    """The first exception in the local work of this rank, until all ranks hear of it."""

    error: Exception | None = None

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Keep an exception of the block: the other ranks wait for this one's next message."""
        try:
            yield
        except Exception as error:  # not hidden: the report to all ranks has it
            self.error = self.error or error


@attrs.frozen
class Report:
    """The answer of a rank: its trouble, and aliases that rank 0 cannot see."""

    trouble: Trouble | None
    same: Mapping[int, int] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class Contents:
    """The leaves of rank 0, to which every rank compares its own.

    Attributes:
        paths: in order.
        holdings: which bytes each rank holds; of a plain tensor rank 0 holds all.
        placed: indices of the leaves that are ``DTensor``.
        same: for each leaf the index of an earlier one with the same memory, or ``None``.
    """

    paths: list[Path]
    holdings: list[Holding]
    placed: frozenset[int]
    same: list[int | None]
    step: int | None

    @classmethod
    def of(cls, snap: Snapshot) -> Contents:
        holdings = [
            snap.placed.get(i)
            or Holding(tuple(t.shape), tuple(t.stride()), t.dtype, (Piece(0, t.nbytes, (0,)),))
            for i, (_, t) in enumerate(snap.tensors)
        ]
        paths = [path for path, _ in snap.tensors]
        return cls(paths, holdings, frozenset(snap.placed), snap.same, snap.step)

    def kind(self, index: int) -> str:
        """Describe what must be equal on all ranks: dtype, shape, and who holds which bytes."""
        holding = self.holdings[index]
        pieces = [(p.first, p.last, p.ranks) for p in holding.pieces]
        placed = f" placed as {pieces}" if index in self.placed else ""
        return f"{dtype_name(holding.dtype)}{list(holding.shape)}{placed}"

    def merge_aliases(self, reports: list[Report]) -> list[int | None]:
        """Return which leaves are aliases of which."""
        found: dict[int, int] = {}
        for each in reversed(reports):
            found |= each.same
        return [found.get(i, first) for i, first in enumerate(self.same)]


def report(rank: int, snap: Snapshot, contents: Contents, failure: Failure) -> Report:
    """Compare the leaves of this rank with those of rank 0."""
    own = {path: index for index, (path, _) in enumerate(snap.tensors)}
    with failure.caught():
        problem = next(_problems(rank, Contents.of(snap), contents, own), None)
        if problem is not None:
            raise RankMismatchError(
                f"{problem}. Save the same state on every rank; only rank 0 may have more leaves"
            )
    if failure.error is not None:
        return Report(Trouble.of(rank, failure.error))
    same = _aliases(rank, snap.same, contents, own)
    silent = (i for i in same if not contents.holdings[i].is_on(0))
    return Report(None, {i: first for i in silent if (first := same[i]) is not None})


def _problems(
    rank: int, mine: Contents, contents: Contents, own: Mapping[Path, int]
) -> Iterator[str]:
    """Yield the differences from rank 0 that cannot be saved."""
    if mine.step != contents.step:
        yield f"rank {rank} saves step {mine.step}, rank 0 step {contents.step}"
    for path in sorted(own.keys() - set(contents.paths), key=path_string):
        yield f"{path_string(path)}: rank {rank} has this leaf, rank 0 has not"
    same = _aliases(rank, mine.same, contents, own)
    for index, path in enumerate(contents.paths):
        name = path_string(path)
        if path not in own:
            if index in contents.placed:
                yield f"{name}: rank 0 has a part of this DTensor, rank {rank} has not"
            continue
        got, expected = mine.kind(own[path]), contents.kind(index)
        first = contents.same[index]
        if got != expected:
            yield f"{name}: expected {expected} as on rank 0, got {got} on rank {rank}"
        elif contents.holdings[index].is_on(0) and same.get(index, first) != first:
            yield f"{name}: rank 0 and rank {rank} disagree on which leaves share its memory"


def _aliases(
    rank: int, same: list[int | None], contents: Contents, own: Mapping[Path, int]
) -> dict[int, int | None]:
    """Return the alias of each leaf of which this rank holds bytes, by indices of rank 0."""
    places = {path: index for index, path in enumerate(contents.paths)}
    to_theirs = {index: places.get(path) for path, index in own.items()}
    found: dict[int, int | None] = {}
    for path, index in own.items():
        place, first = places.get(path), same[index]
        if place is not None and (
            place not in contents.placed or contents.holdings[place].is_on(rank)
        ):
            found[place] = None if first is None else to_theirs[first]
    return found
