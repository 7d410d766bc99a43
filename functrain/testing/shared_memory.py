"""Find tensors of two values that share memory, including views."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from functrain.testing.object_leaves import leaves
from functrain.tree.objects import is_array
from functrain.tree.placed import local


class Extent(NamedTuple):
    """The bytes that a leaf spans."""

    device: str
    start: int
    stop: int
    place: str


def extents(value: Any, name: str) -> list[Extent]:
    """Return the bytes that the tensors and arrays of a value span."""
    found = [_extent(place, leaf) for place, leaf in leaves(value, name)]
    return [extent for extent in found if extent is not None]


def overlaps(first: Iterable[Extent], second: Iterable[Extent]) -> list[tuple[str, str]]:
    """Return pairs of places, one of each value, whose bytes overlap.

    Example:
        >>> weight = torch.zeros(4)
        >>> overlaps(extents({"w": weight}, "new"), extents([weight[2:]], "old"))
        [("new['w']", 'old[0]')]
    """
    events = sorted(
        [(extent, 0) for extent in first] + [(extent, 1) for extent in second],
        key=lambda event: event[0][:3],
    )
    active: tuple[list[Extent], list[Extent]] = ([], [])
    found = []
    for extent, side in events:
        other = active[1 - side]
        other[:] = [each for each in other if _reaches(each, extent)]
        pairs = [(extent, each) if side == 0 else (each, extent) for each in other]
        found += [(one.place, two.place) for one, two in pairs]
        active[side].append(extent)
    return sorted(found)


def _reaches(earlier: Extent, later: Extent) -> bool:
    return earlier.device == later.device and earlier.stop > later.start


def _extent(place: str, leaf: Any) -> Extent | None:
    if is_array(leaf):
        leaf = _as_tensor(leaf)
    leaf = local(leaf)
    if not isinstance(leaf, Tensor) or leaf.layout is not torch.strided or not leaf.numel():
        return None
    try:
        start = leaf.data_ptr()
    except RuntimeError:  # a subclass without memory of its own
        return None
    last = sum((size - 1) * step for size, step in zip(leaf.shape, leaf.stride(), strict=True))
    return Extent(str(leaf.device), start, start + (last + 1) * leaf.element_size(), place)


def _as_tensor(array: Any) -> Tensor | None:
    # Skip read-only arrays, about which from_numpy would warn: only the address is needed.
    if not array.flags.writeable or not array.size:
        return None
    try:
        return torch.from_numpy(array)
    except (TypeError, ValueError):  # text, objects, reversed views
        return None
