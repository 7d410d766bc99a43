"""Where the tensors of a state are: on every rank, or rows of them on each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import attrs

from functrain.core.clipping import ALIGNMENT
from functrain.errors import ConfigurationError
from functrain.errors.validators import one_of

Shard: TypeAlias = Literal["none", "optimizer", "all"]
"""What is cut: nothing; optimizer state and average (ZeRO-2); parameters too (ZeRO-3)."""


def _check_data(_: Placement, attribute: object, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or (value < 1 and value != -1):
        raise ConfigurationError(f"data: expected a number of ranks, or -1 for all, got {value!r}")


def _check_shard(_: Placement, attribute: object, value: object) -> None:
    one_of(Shard).check("shard", value)


@attrs.frozen
class Placement:
    """Where the tensors of a state are. It decides about memory and traffic, not about numbers.

    Attributes:
        data: the number of ranks that share each batch; -1 for all.
        shard: ``"none"``: every rank has the whole state. ``"optimizer"``: each has its rows of the
            optimizer state and of the average. ``"all"``: of the parameters too, which are gathered
            for the forward and backward pass.

    Example:
        >>> Placement(shard="all")
        Placement(data=-1, shard='all')
    """

    data: int = attrs.field(default=-1, validator=_check_data)
    shard: Shard = attrs.field(default="none", validator=_check_shard)


def rows(length: int, rank: int, ranks: int) -> tuple[int, int]:
    """Return the first row of a rank and the one after its last, as ``torch.chunk`` cuts them.

    Example:
        >>> [rows(5, rank, 3) for rank in range(3)]
        [(0, 2), (2, 4), (4, 5)]
    """
    size = -(-length // ranks)
    return min(rank * size, length), min((rank + 1) * size, length)


def is_cut(shape: Sequence[int], ranks: int) -> bool:
    """Return whether a leaf of this shape is cut into rows.

    Every cut must fall on a multiple of 64 elements: a kernel computes the rest of its vector loop
    by other instructions, whose last bits may differ. Other leaves stay whole.

    Example:
        >>> is_cut([128, 32], 4), is_cut([10, 3], 4), is_cut([], 4), is_cut([128, 32], 1)
        (True, False, False, False)
    """
    if ranks == 1 or len(shape) == 0 or math.prod(shape) == 0:
        return False
    size = -(-shape[0] // ranks)
    return size < shape[0] and size * math.prod(shape[1:]) % ALIGNMENT == 0
