"""Take snapshots of any value, and describe the differences between two of them."""

from __future__ import annotations

import copy
import random
import struct
import weakref
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.testing.object_leaves import is_generator, leaves
from functrain.tree.elements import distance, is_opaque
from functrain.tree.objects import is_array
from functrain.tree.placed import whole

Snapshot = dict[str, Any]


@attrs.frozen
class Change:
    """One place at which two snapshots differ.

    Attributes:
        place: the path as a Python expression.
        kind: ``value``, ``form`` (type, dtype or shape), ``gone`` or ``new``.
    """

    place: str
    kind: Literal["value", "form", "gone", "new"]
    detail: str


def snapshot(value: Any, name: str) -> Snapshot:
    """Copy all leaves of a value by place.

    Example:
        >>> snapshot({"w": 1.0}, "state")
        {"state['w']": 1.0}
    """
    return {place: _kept(leaf) for place, leaf in leaves(value, name)}


def changes(before: Snapshot, after: Snapshot, words: str = "{} became {}") -> list[Change]:
    """Return the places where two snapshots differ, bit for bit, in the order of the first.

    Example:
        >>> changes({"x": 1}, {"x": 2})
        [Change(place='x', kind='value', detail='1 became 2')]
    """
    found = []
    for place, expected in before.items():
        if place not in after:
            found.append(Change(place, "gone", f"{_shown(expected)} is gone"))
        elif not same(expected, after[place]):
            found.append(_change(place, expected, after[place], words))
    new = [place for place in after if place not in before]
    return found + [Change(place, "new", f"{_shown(after[place])} is new") for place in new]


def same(first: Any, second: Any) -> bool:
    """Return whether two leaves of snapshots have the same type and the same bits."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return tree.equal(first, second)
    if type(first) is not type(second):
        return False
    if isinstance(first, float):
        return struct.pack("<d", first) == struct.pack("<d", second)
    if is_array(first):
        form = (first.dtype, first.shape) == (second.dtype, second.shape)
        return form and (first.tobytes() == second.tobytes())
    if first is second:
        return True
    plain = (bool, int, complex, str, bytes, torch.Size, torch.device, set, frozenset, _State)
    return isinstance(first, plain) and bool(first == second)


@attrs.frozen
class _State:
    """The state of a random generator."""

    bits: str


def _kept(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.detach().clone()
    if is_array(leaf):
        return leaf.copy()
    if isinstance(leaf, torch.Generator):
        return _State(tree.digest(leaf.get_state()))
    if isinstance(leaf, random.Random):
        return _State(repr(leaf.getstate()))
    if is_generator(leaf):  # of NumPy, old or new
        return _State(repr(getattr(leaf, "bit_generator", leaf._bit_generator).state))
    if isinstance(leaf, weakref.ref):  # torch's cache of flattened parameters
        return weakref.ref
    return copy.copy(leaf) if isinstance(leaf, set) else leaf


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tensor.shape, tensor.layout


def _change(place: str, before: Any, after: Any, words: str) -> Change:
    dense = all(isinstance(x, Tensor) and x.layout is torch.strided for x in (before, after))
    if dense and _form(before) == _form(after):
        return Change(place, "value", elements(before, after, words))
    if isinstance(before, _State):
        return Change(place, "value", "it was advanced")
    alike = type(before) is type(after) and not isinstance(before, Tensor)
    return Change(place, "value" if alike else "form", words.format(_shown(before), _shown(after)))


def elements(before: Tensor, after: Tensor, words: str = "{} became {}") -> str:
    """Describe how two dense tensors differ: how many elements, where first, and how far.

    Example:
        >>> elements(torch.zeros(2, 2), torch.tensor([[0.0, 1.0], [0.0, 0.5]]))
        '2 of 4 elements, first at [0, 1]: 0.0 became 1.0 (1065353216 ulps)'
    """
    ours, theirs = whole(before).contiguous(), whole(after).to(before.device).contiguous()
    width = before.element_size()
    rows = [tree.to_bytes(each).view(-1, width) for each in (ours, theirs)]
    differing = torch.ne(*rows).any(dim=1).nonzero().flatten()
    first = int(differing[0])
    index = [int(each) for each in torch.unravel_index(torch.tensor(first), before.shape)]
    where = f"{len(differing)} of {before.numel()} elements, first at {index}"
    if is_opaque(before.dtype):
        return where
    one, other = ours.reshape(-1)[first], theirs.reshape(-1)[first]
    ulps = distance(one.reshape(1), other.reshape(1)).ulps
    far = "" if ulps is None else f" ({ulps} ulp{'' if ulps == 1 else 's'})"
    return f"{where}: {words.format(repr(one.item()), repr(other.item()))}{far}"


def _shown(value: Any) -> str:
    return tree.summary(value) if isinstance(value, Tensor) else short(repr(value))


def short(text: str) -> str:
    """Return a text, or its beginning if it is long."""
    return text if len(text) <= 60 else f"{text[:57]}..."
