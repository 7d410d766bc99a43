"""Where the tensors of a state are: on every rank, rows of them on each, or whole on one."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import attrs
import torch
from torch import Tensor

from functrain.core.clipping import ALIGNMENT
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import is_integer, one_of, plain
from functrain.optim.units import Unit

Shard: TypeAlias = Literal["none", "optimizer", "all"]
"""What is divided: nothing; optimizer state and average (ZeRO-2); parameters too (ZeRO-3)."""

# Elements. A smaller leaf that cannot be cut costs more to look after than it takes.
_LEAST = 512


def _check_data(_: Placement, attribute: object, value: object) -> None:
    if not is_integer(value, -1) or value == 0:
        raise ConfigurationError(f"data: expected a number of ranks, or -1 for all, got {value!r}")


def _check_shard(_: Placement, attribute: object, value: object) -> None:
    one_of(Shard).check("shard", value)


@explained
@attrs.frozen
class Placement:
    """Where the tensors of a state are. It decides about memory and traffic, not about numbers.

    Attributes:
        data: the number of ranks that share each batch; -1 for all.
        shard: ``"none"``: every rank has the whole state. ``"optimizer"``: each has its part of the
            optimizer state and of the average. ``"all"``: of the parameters too, which are gathered
            for the forward and backward pass. A part is rows of each leaf, or some whole leaves
            where they cannot be cut or the optimizer must see them whole.

    Example:
        >>> Placement(shard="all")
        Placement(data=-1, shard='all')
    """

    data: int = attrs.field(default=-1, converter=plain, validator=_check_data)
    shard: Shard = attrs.field(default="none", validator=_check_shard)


def rows(length: int, rank: int, ranks: int) -> tuple[int, int]:
    """Return the first row of a rank and the one after its last, as ``torch.chunk`` cuts them.

    Example:
        >>> [rows(5, rank, 3) for rank in range(3)]
        [(0, 2), (2, 4), (4, 5)]
    """
    size = -(-length // ranks)
    return min(rank * size, length), min((rank + 1) * size, length)


@attrs.frozen
class Rows:
    """Which rows of a leaf each rank has: consecutive ones, in the order of the ranks.

    Attributes:
        bounds: rank r has the rows from ``bounds[r]`` to ``bounds[r + 1]``.
        owner: the rank that has all rows, if one has.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    bounds: tuple[int, ...]
    owner: int | None = None

    def on(self, rank: int) -> slice:
        """Return the rows of a rank."""
        return slice(*self.bounds[rank : rank + 2])

    def shape_on(self, rank: int) -> tuple[int, ...]:
        """Return the shape of a rank's rows."""
        return (self.bounds[rank + 1] - self.bounds[rank], *self.shape[1:])

    def laid_out(self, leaf: Tensor) -> Tensor:
        """Return the whole leaf with its own stride."""
        if leaf.stride() == self.stride or leaf.shape != self.shape:
            return leaf
        return leaf.new_empty_strided(self.shape, self.stride).copy_(leaf)


Division: TypeAlias = Mapping[str, Rows]
"""How leaves are divided, by path; a leaf that is not among them is on every rank."""


def cut(leaf: Tensor, ranks: int) -> Rows:
    """Cut a leaf as ``torch.chunk`` does."""
    ends = (rows(len(leaf), rank, ranks)[1] for rank in range(ranks))
    return Rows(tuple(leaf.shape), leaf.stride(), (0, *ends))


def owned(leaf: Tensor, owner: int, ranks: int) -> Rows:
    """Leave a leaf to one rank."""
    ends = (0 if rank < owner else len(leaf) for rank in range(ranks))
    stride = torch.empty_like(leaf, device="meta").stride()  # as a copy of the leaf has it
    return Rows(tuple(leaf.shape), stride, (0, *ends), owner)


def balanced(sizes: Mapping[str, int], ranks: int) -> dict[str, int]:
    """Give each leaf to a rank, so that all have about the same number of bytes.

    The largest leaf that is left goes to the rank that has least: no rank then has more than 4/3
    of what the best assignment gives it (Graham, 1969, "Bounds on multiprocessing timing
    anomalies"). The result depends on the arguments alone.

    Example:
        >>> balanced({"a": 2, "b": 7, "c": 3, "d": 4}, 2)
        {'b': 0, 'd': 1, 'c': 1, 'a': 0}
    """
    held, found = [0] * ranks, dict[str, int]()
    for path, size in sorted(sizes.items(), key=operator.itemgetter(1), reverse=True):
        found[path] = rank = held.index(min(held))
        held[rank] += size
    return found


def is_cut(shape: Sequence[int], ranks: int) -> bool:
    """Return whether a leaf of this shape can be cut into rows.

    Every cut must fall on a multiple of 64 elements: a kernel computes the rest of its vector loop
    by other instructions, whose last bits may differ.

    Example:
        >>> is_cut([128, 32], 4), is_cut([10, 3], 4), is_cut([], 4), is_cut([128, 32], 1)
        (True, False, False, False)
    """
    if ranks == 1 or len(shape) == 0 or math.prod(shape) == 0:
        return False
    size = -(-shape[0] // ranks)
    return size < shape[0] and size * math.prod(shape[1:]) % ALIGNMENT == 0


def divided(
    trained: Mapping[str, Tensor], units: Mapping[str, Unit], ranks: int
) -> tuple[Division, Division]:
    """Return how leaves are stored, and how they are updated.

    A leaf is cut where it can be, else it has an owner. One that its optimizer must see whole is
    updated by an owner, and one whose optimizer looks at others too by every rank.
    """
    # Kernels go through a leaf of other strides in an order that its rows may not have.
    usual = {p: one for p, one in trained.items() if one.stride() == _usual_stride(one.shape)}
    cuts = {path: cut(one, ranks) for path, one in usual.items() if is_cut(one.shape, ranks)}
    sizes = {
        path: one.nbytes
        for path, one in trained.items()
        if ranks > 1 and one.ndim and one.numel() >= _LEAST
        if path not in cuts or units[path] == "leaf"
    }
    alone = {p: owned(trained[p], owner, ranks) for p, owner in balanced(sizes, ranks).items()}
    stored = {**alone, **cuts}
    updated = {"element": stored, "leaf": alone, "all": dict[str, Rows]()}
    return (
        {path: stored[path] for path in trained if path in stored},
        {path: updated[unit][path] for path, unit in units.items() if path in updated[unit]},
    )


def _usual_stride(shape: torch.Size) -> tuple[int, ...]:
    return torch.empty(shape, device="meta").stride()
