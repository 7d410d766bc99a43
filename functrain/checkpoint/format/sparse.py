"""Convert sparse tensors to indices and values and back, checking every index."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from functrain.checkpoint.format.dtypes import dtype_name
from functrain.checkpoint.format.scalars import Json
from functrain.tree.elements import parts_of

_BY_ROW, _BY_COLUMN = ("crow_indices", "col_indices"), ("ccol_indices", "row_indices")
_INDICES: dict[str, tuple[str, ...]] = {
    "sparse_coo": ("indices",),
    "sparse_csr": _BY_ROW,
    "sparse_csc": _BY_COLUMN,
    "sparse_bsr": _BY_ROW,
    "sparse_bsc": _BY_COLUMN,
}
_LAYOUTS: dict[str, torch.layout] = {kind: getattr(torch, kind) for kind in _INDICES}
KINDS = {layout: kind for kind, layout in _LAYOUTS.items()}


def outline(tensor: Tensor) -> dict[str, Json]:
    """Describe a sparse tensor without its indices and values; refuse blocks of size 0."""
    if _blocks(KINDS[tensor.layout]):
        compressed, _, values = (part for _, part in parts(tensor))
        _check_blocks(KINDS[tensor.layout], values, compressed.ndim)
    scalars: dict[str, Json] = {"shape": list(tensor.shape), "dtype": dtype_name(tensor.dtype)}
    if tensor.layout == torch.sparse_coo:
        scalars["coalesced"] = tensor.is_coalesced()
    return scalars


def parts(tensor: Tensor) -> list[tuple[str, Tensor]]:
    """Return the dense parts of a sparse tensor, named after torch's accessors."""
    found: Any = parts_of(tensor)
    return [(name, part) for name, part in found.items() if isinstance(part, Tensor)]


def build(kind: str, scalars: Mapping[str, Json], parts: Mapping[str, Any]) -> Tensor:
    """Build the sparse tensor that :func:`outline` and :func:`parts` describe, in their memory."""
    names = _INDICES[kind]
    if set(parts) != {*names, "values"} or not all(type(each) is Tensor for each in parts.values()):
        raise ValueError(f"a {kind} tensor has the parts {', '.join(parts)}")
    shape, values = scalars.get("shape"), parts["values"]
    if type(shape) is not list or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"{shape!r} is no shape")
    if scalars.get("dtype") != dtype_name(values.dtype):
        raise ValueError(f"a {kind} tensor of {scalars.get('dtype')} has values of {values.dtype}")
    _check_indices(kind, [parts[name] for name in names], shape, values)
    try:
        return _made(kind, scalars, [parts[name] for name in names], values)
    except RuntimeError as error:
        raise ValueError(f"a {kind} tensor is malformed: {error}") from error


def _check_indices(kind: str, indices: list[Tensor], shape: list[int], values: Tensor) -> None:
    """Check what torch does not check itself."""
    allowed = (torch.int64,) if kind == "sparse_coo" else (torch.int64, torch.int32)
    for each in indices:
        if each.dtype not in allowed or each.device != values.device:
            raise ValueError(f"a {kind} tensor has indices of {each.dtype} on {each.device}")
    if any(size >> 63 for size in shape) or math.prod(shape) >> 63:
        raise ValueError(f"no tensor is as large as {shape}")
    if kind != "sparse_coo":
        first = indices[0].ndim
        if list(values.shape[first + _blocks(kind) :]) != shape[first + 1 :]:
            raise ValueError(f"a {kind} tensor of shape {shape} has values of {values.shape}")
        _check_blocks(kind, values, first)


def _check_blocks(kind: str, values: Tensor, first: int) -> None:
    """Refuse empty blocks: torch accepts such tensors, but divides by the block size later."""
    if 0 in values.shape[first : first + _blocks(kind)]:
        raise ValueError(f"a {kind} tensor with blocks of size 0")


def _blocks(kind: str) -> int:
    return 2 if kind in ("sparse_bsr", "sparse_bsc") else 0


def _made(kind: str, scalars: Mapping[str, Json], indices: list[Tensor], values: Tensor) -> Tensor:
    shape, device = torch.Size(scalars["shape"]), values.device
    if kind == "sparse_coo":
        coalesced = scalars.get("coalesced")
        if type(coalesced) is not bool:
            raise ValueError(f"{coalesced!r} does not say whether a sparse_coo tensor is coalesced")
        return torch.sparse_coo_tensor(
            indices[0], values, shape, device=device, is_coalesced=coalesced, check_invariants=True
        )
    return torch.sparse_compressed_tensor(
        indices[0],
        indices[1],
        values,
        shape,
        layout=_LAYOUTS[kind],
        device=device,
        check_invariants=True,
    )
