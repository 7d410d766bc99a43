"""Describe which ranks hold which bytes of a tensor."""

from __future__ import annotations

import math
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.errors import UnsupportedError
from functrain.tree import Path, path_string


@attrs.frozen
class Piece:
    """A range of the bytes of a tensor, and the ranks that each hold all of it."""

    first: int
    last: int
    ranks: tuple[int, ...]


@attrs.frozen(eq=False)
class Holding:
    """A whole tensor of which a rank holds some rows, all or none.

    ``shape``, ``stride`` and ``dtype`` are of the whole tensor; the pieces have no gaps.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    pieces: tuple[Piece, ...]

    @property
    def nbytes(self) -> int:
        """The number of bytes of the whole tensor."""
        return math.prod(self.shape) * self.dtype.itemsize

    def outline(self) -> Tensor:
        """Return the whole tensor without memory."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")

    def is_on(self, rank: int) -> bool:
        """Return whether a rank holds any byte."""
        return any(rank in piece.ranks and piece.first < piece.last for piece in self.pieces)

    def begin(self, rank: int) -> int:
        """Return the first byte that a rank holds, from the beginning of the tensor."""
        return next((piece.first for piece in self.pieces if rank in piece.ranks), 0)

    def rows(self, rank: int) -> tuple[int, int]:
        """Return the first row of which a rank holds bytes, and the end of its rows.

        Example:
            >>> Holding((5, 2), (2, 1), torch.int8, (Piece(0, 6, (0,)), Piece(6, 10, (1,)))).rows(1)
            (3, 5)
        """
        own = [piece for piece in self.pieces if rank in piece.ranks]
        row = _row_bytes(self.shape, self.dtype)
        if not own or row == 0:
            return 0, 0
        return own[0].first // row, own[-1].last // row


def holding(leaf: Any, path: Path = ()) -> Holding:
    """Describe a ``DTensor``."""
    ranks, cut = leaf.device_mesh.mesh, None
    for dimension, placement in enumerate(leaf.placements):
        if type(placement).__name__ == "Shard" and placement.dim == 0 and cut is None:
            cut = dimension
        elif not placement.is_replicate():
            raise UnsupportedError(
                f"{path_string(path)} is a DTensor with the placements {leaf.placements}; a "
                "checkpoint holds those with Replicate() and at most one Shard(0). Redistribute it "
                "before saving"
            )
    shape, stride = tuple(leaf.shape), tuple(leaf.stride())
    length, row = math.prod(shape) * leaf.dtype.itemsize, _row_bytes(shape, leaf.dtype)
    if cut is None:
        return Holding(shape, stride, leaf.dtype, (_piece(0, length, ranks),))
    parts = ranks.size(cut)
    size = -(-shape[0] // parts)  # the chunks of torch.chunk
    pieces = (
        _piece(min(i * size, shape[0]) * row, min((i + 1) * size, shape[0]) * row, each)
        for i, each in enumerate(ranks.unbind(cut))
    )
    return Holding(shape, stride, leaf.dtype, tuple(p for p in pieces if p.first < p.last))


def _piece(first: int, last: int, ranks: Tensor) -> Piece:
    return Piece(first, last, tuple(ranks.flatten().tolist()))


def _row_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return math.prod(shape[1:]) * dtype.itemsize
