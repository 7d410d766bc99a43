"""Statistics of one tensor, distances of two, and the dense parts of one of another layout."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import attrs
import torch
from torch import Tensor

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_AT_ONCE = 1 << 20
# Packed and untyped elements: torch has no kernel that reads them.
_OPAQUE = re.compile(r"bits.*|u?int[1-7]|float4.*")
_LOWEST = torch.iinfo(torch.int64).min


@attrs.frozen
class Statistics:
    """Statistics of the finite elements; complex ones count by their magnitude.

    ``std`` divides by the number of elements. The first four are ``None`` if none is finite.
    """

    minimum: float | None
    maximum: float | None
    mean: float | None
    std: float | None
    nan: int
    infinite: int


@attrs.frozen
class Distance:
    """The distance of two tensors.

    ``max_abs`` is NaN where an element is, ``ulps`` that of real floating dtypes.
    """

    count: int
    max_abs: float | None
    ulps: int | None


def parts_of(tensor: Tensor) -> dict[str, Any] | list[Tensor] | None:
    """Return the dense tensors and numbers that a tensor consists of; ``None`` of a dense one.

    Example:
        >>> parts_of(torch.eye(2).to_sparse_csr())["col_indices"]
        tensor([0, 1])
    """
    layout = tensor.layout
    if layout is torch.strided and not tensor.is_nested and not tensor.is_quantized:
        return None
    bare = tensor.detach()
    if bare.is_nested:
        return [*bare.unbind()]
    if bare.is_quantized:
        return {"values": bare.int_repr(), **_scales(bare)}
    if layout is torch.sparse_coo:
        coalesced = bare.is_coalesced()
        return {"indices": bare._indices(), "values": bare._values(), "coalesced": coalesced}
    if layout in (torch.sparse_csr, torch.sparse_bsr):
        names = ("crow_indices", "col_indices", "values")
    elif layout in (torch.sparse_csc, torch.sparse_bsc):
        names = ("ccol_indices", "row_indices", "values")
    else:  # that of oneDNN, which is opaque
        return {"values": bare.to_dense()}
    return {name: getattr(bare, name)() for name in names}


def _scales(tensor: Tensor) -> dict[str, Any]:
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return {"scale": tensor.q_scale(), "zero_point": tensor.q_zero_point()}
    return {
        "scales": tensor.q_per_channel_scales(),
        "zero_points": tensor.q_per_channel_zero_points(),
        "axis": tensor.q_per_channel_axis(),
    }


def as_integers(tensor: Tensor) -> Tensor:
    """View the same memory as integers, which every kernel supports.

    Complex tensors are returned as they are: all kernels support them.
    """
    return tensor if tensor.is_complex() else tensor.view(_INTEGERS[tensor.element_size()])


def statistics(tensor: Tensor) -> Statistics | None:
    """Return statistics of a contiguous tensor, ``None`` for elements that torch cannot read.

    Example:
        >>> statistics(torch.tensor([1.0, 3.0, math.nan, math.inf]))
        Statistics(minimum=1.0, maximum=3.0, mean=2.0, std=1.0, nan=1, infinite=1)
    """
    if is_opaque(tensor.dtype):
        return None
    count, mean, squares, nan, infinite = 0, 0.0, 0.0, 0, 0
    low, high = math.inf, -math.inf
    for part in _parts(tensor):
        numbers = _real(part)
        finite = numbers[numbers.isfinite()]
        nan += (own := int(numbers.isnan().sum()))
        infinite += len(numbers) - len(finite) - own
        if not len(finite):
            continue
        low, high = min(low, float(finite.min())), max(high, float(finite.max()))
        # Chan, Golub & LeVeque (1979): combine means and squares of parts without cancellation.
        middle = float(finite.mean())
        shift, total = middle - mean, count + len(finite)
        squares += float((finite - middle).square().sum())
        squares += shift * shift * count * len(finite) / total
        mean, count = mean + shift * len(finite) / total, total
    if not count:
        return Statistics(None, None, None, None, nan, infinite)
    return Statistics(low, high, mean, math.sqrt(squares / count), nan, infinite)


def distance(first: Tensor, second: Tensor) -> Distance:
    """Measure the distance of two contiguous tensors of one dtype and shape, bit for bit.

    Example:
        >>> distance(torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0]))
        Distance(count=1, max_abs=0.0, ulps=1)
    """
    count, max_abs, ulps = 0, 0.0, 0
    opaque, floating = is_opaque(first.dtype), first.is_floating_point()
    for ours, theirs in zip(_parts(first), _parts(second), strict=True):
        unequal = _unequal(ours, theirs)
        found = int(unequal.sum())
        if found:
            count += found
            ours, theirs = _picked(ours, unequal), _picked(theirs, unequal)
            if not opaque:
                max_abs = _greater(max_abs, _gap(ours, theirs))
            if floating and not opaque:
                ulps = max(ulps, _steps(ours, theirs))
    return Distance(count, None if opaque else max_abs, ulps if floating and not opaque else None)


def first_unequal(first: Tensor, second: Tensor) -> int:
    """Return the row-major index at which two contiguous tensors first differ.

    Both have the same dtype and shape.

    Example:
        >>> first_unequal(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, -0.0]]))
        1
    """
    before = 0
    for ours, theirs in zip(_parts(first), _parts(second), strict=True):
        unequal = _unequal(ours, theirs)
        if unequal.any():
            return before + int(unequal.to(torch.uint8).argmax())
        before += len(ours)
    raise ValueError("first_unequal: the tensors are the same, bit for bit")


def number(tensor: Tensor, flat: int) -> Any:
    """Return one element as a Python number; its bits for dtypes that torch cannot read.

    Example:
        >>> number(torch.tensor([[0.5, -0.0]]), 1)
        -0.0
    """
    one = tensor.view(-1)[flat : flat + 1]
    return (as_integers(one) if is_opaque(tensor.dtype) else one).item()


def is_opaque(dtype: torch.dtype) -> bool:
    """Return whether torch cannot read the elements of a dtype as numbers."""
    return _OPAQUE.fullmatch(str(dtype).removeprefix("torch.")) is not None


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    flat = tensor.view(-1)
    for start in range(0, len(flat), _AT_ONCE):
        yield flat[start : start + _AT_ONCE]


def _real(part: Tensor) -> Tensor:
    if not part.is_complex():
        return part.to(torch.float64)
    wide = part.to(torch.complex128)
    # The magnitude of (inf, nan) is inf by definition; here such an element counts as NaN.
    return torch.where(wide.isnan(), math.nan, wide.abs())


def _unequal(ours: Tensor, theirs: Tensor) -> Tensor:
    if not ours.is_complex():
        return as_integers(ours) != as_integers(theirs)
    width = ours.element_size()
    pairs = (torch.view_as_real(part).view(torch.uint8).view(-1, width) for part in (ours, theirs))
    return torch.ne(*pairs).any(dim=1)


def _picked(part: Tensor, where: Tensor) -> Tensor:
    return part[where] if part.is_complex() else as_integers(part)[where].view(part.dtype)


def _gap(ours: Tensor, theirs: Tensor) -> float:
    if ours.is_complex():
        return float((ours.to(torch.complex128) - theirs.to(torch.complex128)).abs().max())
    if ours.is_floating_point():
        return float((ours.to(torch.float64) - theirs.to(torch.float64)).abs().max())
    return _steps(ours, theirs)


def _greater(one: float, other: float) -> float:
    return math.nan if math.isnan(one) or math.isnan(other) else max(one, other)


def _steps(ours: Tensor, theirs: Tensor) -> int:
    """Return the greatest number of representable values between two elements, exactly."""
    one, other = _ordered(ours), _ordered(theirs)
    # May exceed 63 bits: the difference wraps around, and is right when read as unsigned.
    gaps = torch.maximum(one, other) - torch.minimum(one, other)
    return int((gaps + _LOWEST).max()) - _LOWEST


def _ordered(part: Tensor) -> Tensor:
    """Return 64-bit integers in the order of the elements, with -0.0 just below 0.0."""
    bits = as_integers(part)
    if part.dtype == torch.uint64:
        return bits ^ _LOWEST
    if part.dtype in (torch.uint8, torch.bool, torch.float8_e8m0fnu):
        return bits.to(torch.int64)
    if part.dtype in (torch.uint16, torch.uint32):
        return part.to(torch.int64)
    signed = (bits.view(torch.int8) if part.element_size() == 1 else bits).to(torch.int64)
    if not part.is_floating_point():
        return signed
    lowest = -(1 << (8 * part.element_size() - 1))
    return torch.where(signed < 0, lowest - signed - 1, signed)
