"""Bytewise comparison of trees: the same means the same bits.

``torch.equal`` calls NaN unequal to itself and -0.0 equal to 0.0; a resumed run must be the same
*bytes*, so leaves are compared as bytes, with dtype and shape. The device is ignored, and so is the
placement of a DTensor: all ranks compare its whole value together, one leaf at a time. Sparse,
nested and quantized tensors are compared by their dense parts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex, overload

import attrs
import torch
from torch import Tensor

from functrain.tree.elements import distance, first_unequal, number, parts_of
from functrain.tree.frozen_dict import kind
from functrain.tree.nodes import Leaf, Path, Tree, children, is_node, items, path_string
from functrain.tree.objects import is_array
from functrain.tree.placed import is_placed, whole

_MOST_LINES = 20
# More is no rounding error: values differ in sign or by orders of magnitude.
_MOST_ULPS = 1 << 20


@attrs.frozen
class Difference:
    """One place where two trees differ.

    Attributes:
        path: where.
        kind: ``missing`` (only in the first), ``unexpected`` (only in the second), ``type``,
            ``dtype``, ``shape`` or ``value``.
        detail: what differs, for people.
        count: elements that differ (0 where the kind is not ``value``).
        max_abs: largest absolute difference, ``nan`` where it is not defined.
        ulps: largest distance in units in the last place; ``None`` for what is not floating point.
        index: of the first element that differs, ``()`` of a scalar; ``None`` where the kind is not
            ``value``.
        first: its value in the first tree.
        second: and in the second.
        elements: how many the tensor has; ``None`` of a scalar, or where the kind is not ``value``.
    """

    path: Path
    kind: str
    detail: str
    count: int = 0
    max_abs: float = float("nan")
    ulps: int | None = None
    index: tuple[int, ...] | None = None
    first: Any = None
    second: Any = None
    elements: int | None = None

    def __str__(self) -> str:
        return f"{path_string(self.path)}: {self.kind}: {self.detail}"


class Differences(list[Difference]):
    """A list that prints one difference per line, and as a table in a notebook.

    Example:
        >>> Differences([Difference(("w",), "dtype", "expected torch.float32, got torch.float16")])
        1 difference
          w: dtype: expected torch.float32, got torch.float16
        >>> Differences()
        []
    """

    @overload
    def __getitem__(self, which: SupportsIndex) -> Difference: ...
    @overload
    def __getitem__(self, which: slice) -> Differences: ...
    def __getitem__(self, which: SupportsIndex | slice) -> Difference | Differences:
        """Return one difference, or a slice that prints itself too."""
        if isinstance(which, slice):
            return Differences(super().__getitem__(which))
        return super().__getitem__(which)

    def __repr__(self) -> str:
        if not self:
            return "[]"
        count = len(self)
        lines = [f"  {found}" for found in self[:_MOST_LINES]]
        more = [f"  ... {count - _MOST_LINES:,} more"] if count > _MOST_LINES else []
        title = f"{count:,} difference{'' if count == 1 else 's'}"
        return "\n".join([title, *lines, *more])


def to_bytes(tensor: Tensor) -> Tensor:
    """Return the bytes of a dense tensor in logical order, as a flat uint8 tensor on its device.

    Args:
        tensor: any dense tensor; views, conjugates and negated views are resolved. All ranks call
            this together for a DTensor, and return the bytes of its whole value.

    Returns:
        uint8 tensor of ``numel * itemsize`` elements; shares memory where it can.

    Example:
        >>> to_bytes(torch.tensor([-0.0])).tolist()
        [0, 0, 0, 128]
    """
    dense = whole(tensor).detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    if dense.is_complex():
        dense = torch.view_as_real(dense).reshape(-1)
    # One element (or none) may come with any stride and still be contiguous.
    return dense.as_strided(dense.shape, (1,)).view(torch.uint8)


def diff(first: Tree, second: Tree) -> Differences:
    """List where two trees differ, bit for bit.

    Args:
        first: the tree that is expected.
        second: the tree to compare with it.

    Returns:
        Differences in tree order, as a list that prints itself; empty if the trees are the same.

    Example:
        >>> a, b = {"w": torch.tensor([0.0, 1.0])}, {"w": torch.tensor([-0.0, 1.0])}
        >>> print(*diff(a, b))
        w: value: 1 of 2 elements differ, at most by 0 (1 ulp)
    """
    return Differences(_differences(first, second, ()))


def ulps_text(ulps: int | None) -> str:
    """Return a distance in units in the last place; nothing if it is too large to mean anything."""
    if ulps is None or ulps > _MOST_ULPS:
        return ""
    return "1 ulp" if ulps == 1 else f"{ulps:,} ulps"


def equal(first: Tree, second: Tree) -> bool:
    """Return whether two trees have the same structure and the same bytes in every leaf."""
    found = _differences(first, second, ())
    same = next(found, None) is None
    if not same and any(is_placed(leaf) for tree in (first, second) for _, leaf in items(tree)):
        list(found)  # other ranks, for which the first leaves are equal, wait for the rest
    return same


def _differences(first: Tree, second: Tree, path: Path) -> Iterator[Difference]:
    tensors = isinstance(first, Tensor) and isinstance(second, Tensor)
    if kind(first) is not kind(second) and not tensors:
        detail = f"expected {type(first).__name__}, got {type(second).__name__}"
        yield Difference(path, "type", detail)
    elif is_node(first):
        yield from _node_differences(first, second, path)
    elif isinstance(first, Tensor):
        yield from _tensor_differences(first, second, path)
    elif is_array(first):
        yield from _array_differences(first, second, path)
    elif not _same_scalar(first, second):
        yield _scalar_difference(first, second, path)


def _node_differences(first: Tree, second: Tree, path: Path) -> Iterator[Difference]:
    ours, theirs = dict(children(first)), dict(children(second))
    for key, child in ours.items():
        if key in theirs:
            yield from _differences(child, theirs[key], (*path, key))
        else:
            yield Difference((*path, key), "missing", "only in the first tree")
    for key in theirs:
        if key not in ours:
            yield Difference((*path, key), "unexpected", "only in the second tree")


def _same_scalar(first: Leaf, second: Leaf) -> bool:
    return first is second or bool(_scalar_bits(first) == _scalar_bits(second))


def _scalar_bits(leaf: Leaf) -> object:
    """Return a leaf, or its bytes where ``==`` does not compare these."""
    if type(leaf).__module__ == "numpy" and hasattr(leaf, "tobytes") and not leaf.dtype.hasobject:
        return leaf.dtype, leaf.tobytes()
    if isinstance(leaf, complex):
        return struct.pack("<dd", leaf.real, leaf.imag)
    if isinstance(leaf, torch.Generator):
        return bytes(leaf.get_state().tolist())
    return struct.pack("<d", leaf) if isinstance(leaf, float) else leaf


def _scalar_difference(first: Leaf, second: Leaf, path: Path) -> Difference:
    numeric = isinstance(first, int | float)
    gap = abs(first - second) if numeric else float("nan")
    detail = f"expected {first!r}, got {second!r}"
    return Difference(path, "value", detail, 1, gap, None, (), first, second)


def _tensor_differences(first: Tensor, second: Tensor, path: Path) -> Iterator[Difference]:
    parts, others = parts_of(first), parts_of(second)
    if first.dtype != second.dtype:
        yield Difference(path, "dtype", f"expected {first.dtype}, got {second.dtype}")
    elif first.layout != second.layout or type(parts) is not type(others):
        yield Difference(path, "type", f"expected {_layout(first)}, got {_layout(second)}")
    elif isinstance(parts, list):  # torch gives no shape of one, or calls equal ones different
        yield from _differences(parts, others, path)
    elif first.shape != second.shape:
        expected, got = list(first.shape), list(second.shape)
        yield Difference(path, "shape", f"expected {expected}, got {got}")
    elif parts is not None:
        yield from _differences(parts, others, path)
    else:
        first, second = whole(first), whole(second)
        ours, theirs = to_bytes(first), to_bytes(second).to(first.device)
        if not torch.equal(ours, theirs):
            yield _value_difference(first.detach(), second.detach().to(first.device), path)


def _layout(tensor: Tensor) -> str:
    nested = tensor.is_nested and tensor.layout is torch.strided
    name = "nested" if nested else str(tensor.layout).removeprefix("torch.")
    return f"a {name} tensor"


def _array_differences(first: Any, second: Any, path: Path) -> Iterator[Difference]:
    if first.dtype != second.dtype:
        yield Difference(path, "dtype", f"expected {first.dtype}, got {second.dtype}")
    elif first.shape != second.shape:
        detail = f"expected {list(first.shape)}, got {list(second.shape)}"
        yield Difference(path, "shape", detail)
    elif first.dtype.hasobject:
        yield from _differences(first.tolist(), second.tolist(), path)
    elif first.tobytes() != second.tobytes():
        pairs = enumerate(zip(first.reshape(-1), second.reshape(-1), strict=True))
        unequal = [flat for flat, (one, other) in pairs if one.tobytes() != other.tobytes()]
        index = _index(unequal[0], first.shape)
        detail = f"{len(unequal)} of {first.size} elements differ"
        more = index, first[index].item(), second[index].item(), first.size
        yield Difference(path, "value", detail, len(unequal), float("nan"), None, *more)


def _index(flat: int, shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(place) for place in torch.unravel_index(torch.tensor(flat), tuple(shape)))


def _value_difference(first: Tensor, second: Tensor, path: Path) -> Difference:
    ours, theirs = (tensor.resolve_conj().resolve_neg().contiguous() for tensor in (first, second))
    found = distance(ours, theirs)
    steps = f" ({ulps})" if (ulps := ulps_text(found.ulps)) else ""
    most = "" if found.max_abs is None else f", at most by {found.max_abs:.4g}{steps}"
    detail = f"{found.count} of {first.numel()} elements differ{most}"
    max_abs = float("nan") if found.max_abs is None else found.max_abs
    flat = first_unequal(ours, theirs)
    index = _index(flat, first.shape)
    values = (number(tensor, flat) for tensor in (ours, theirs))
    counted = found.count, max_abs, found.ulps, index, *values, first.numel()
    return Difference(path, "value", detail, *counted)
