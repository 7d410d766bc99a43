"""Convert composite leaves to dense tensors and back, checking every index.

Composite leaves are sparse tensors, NumPy arrays, generators, and subclasses of Tensor with
``__tensor_flatten__`` and ``__tensor_unflatten__``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from functrain.checkpoint.format import numpy_arrays
from functrain.checkpoint.format.dtypes import dtype_name
from functrain.checkpoint.format.scalars import Json
from functrain.checkpoint.format.structure import Node, qualified_name
from functrain.checkpoint.format.tensor_bytes import is_here
from functrain.errors import CheckpointDeviceError, UnsupportedError
from functrain.tree import Path, path_string
from functrain.tree.elements import parts_of
from functrain.tree.placed import is_placed

_DENSE = (Tensor, torch.nn.Parameter)
_BY_ROW, _BY_COLUMN = ("crow_indices", "col_indices"), ("ccol_indices", "row_indices")
_INDICES: dict[str, tuple[str, ...]] = {
    "sparse_coo": ("indices",),
    "sparse_csr": _BY_ROW,
    "sparse_csc": _BY_COLUMN,
    "sparse_bsr": _BY_ROW,
    "sparse_bsc": _BY_COLUMN,
}
_LAYOUTS: dict[str, torch.layout] = {kind: getattr(torch, kind) for kind in _INDICES}
_KINDS = {layout: kind for kind, layout in _LAYOUTS.items()}


def composite_kind(leaf: object) -> str | None:
    """Return the kind of a composite leaf, or ``None`` for any other leaf."""
    if isinstance(leaf, Tensor):
        if is_placed(leaf):
            return None  # a plain tensor, of which each rank holds a part
        return _KINDS.get(leaf.layout) if type(leaf) in _DENSE else "subclass"
    if type(leaf) is torch.Generator:
        return "generator"
    return "array" if numpy_arrays.is_array(leaf) else None


def outline(kind: str, leaf: Any, path: Path) -> dict[str, Json]:
    """Describe a composite leaf without its tensors, as JSON.

    The context of a subclass is not included; :func:`to_parts` returns it.
    """
    if kind == "generator":
        return {"device": str(leaf.device)}
    if kind != "subclass":
        try:
            return numpy_arrays.outline(leaf) if kind == "array" else _sparse_outline(leaf)
        except ValueError as error:
            raise UnsupportedError(f"{path_string(path)} is or has {error}") from error
    if is_placed(leaf):
        raise UnsupportedError(
            f"{path_string(path)} is a DTensor, whose elements are spread over processes. Convert "
            "the state first, on every rank: program.gathered(state); then save it on one rank"
        )
    if leaf.is_nested or not hasattr(leaf, "__tensor_flatten__"):
        raise UnsupportedError(
            f"{path_string(path)} is a {qualified_name(type(leaf))}, a subclass of Tensor, and a "
            "checkpoint holds only those with __tensor_flatten__ and __tensor_unflatten__, which "
            "are not nested. Convert it to a plain tensor before saving"
        )
    return {
        "class": qualified_name(type(leaf)),
        "shape": list(leaf.shape),
        "stride": list(leaf.stride()),
        "dtype": dtype_name(leaf.dtype),
    }


def to_parts(kind: str, leaf: Any, path: Path) -> tuple[Node, Any]:
    """Convert a composite leaf to a node whose children are its tensors.

    Return (node, context), the latter from a subclass's ``__tensor_flatten__``, else ``None``.
    """
    scalars, context = outline(kind, leaf, path), None
    parts: list[tuple[Any, Any]]
    if kind == "generator":
        parts = [("state", leaf.get_state())]
    elif kind == "array":
        parts = [("values", numpy_arrays.values_of(leaf))]
    elif kind == "subclass":
        names, context = leaf.__tensor_flatten__()
        parts = [(name, getattr(leaf, name)) for name in names]
    else:
        parts = [*_sparse_parts(leaf)]
    return Node(kind, parts, None, scalars), context


def from_parts(
    node: Node, parts: Mapping[str, Any], like: Any, cls: Any, context: Any, path: Path
) -> Any:
    """Build the leaf of a node; inverse of :func:`to_parts`.

    A generator is created on the device of ``like``; ``cls`` and ``context`` are for a subclass.
    """
    if node.kind == "generator":
        return _generator(node, parts, like, path)
    if node.kind == "subclass":
        return _subclass(node, parts, cls, context)
    if node.kind != "array":
        return _sparse(node.kind, node.scalars, parts)
    if [*parts] != ["values"] or type(parts["values"]) is not Tensor:
        raise ValueError(f"an array has the parts {', '.join(parts)}")
    return numpy_arrays.build(node.scalars, parts["values"])


def _generator(node: Node, parts: Mapping[str, Any], like: Any, path: Path) -> torch.Generator:
    state, name = parts.get("state"), node.scalars.get("device")
    valid = type(state) is Tensor and state.dtype == torch.uint8 and len(parts) == 1
    if not valid or state is None or type(name) is not str:
        raise ValueError(f"a generator of {name} has the parts {', '.join(parts)}")
    try:
        saved = torch.device(name)
        device = like.device if isinstance(like, torch.Generator) else saved
        if is_here(device):
            return torch.Generator(device).set_state(state.cpu().contiguous())
    except RuntimeError as error:
        raise ValueError(f"a generator of {name} is malformed: {error}") from error
    raise CheckpointDeviceError(
        f"{path_string(path)} is a generator of {device}, which this machine lacks, and no other "
        "device continues its stream. Load it on a machine that has one, or leave it out: only=..."
    )


def _subclass(node: Node, parts: Mapping[str, Any], cls: Any, context: Any) -> Tensor:
    if not issubclass(cls, Tensor) or not hasattr(cls, "__tensor_unflatten__"):
        raise ValueError(f"{cls} is no subclass of Tensor with __tensor_unflatten__")
    shape, stride = (_sizes(node.scalars.get(name)) for name in ("shape", "stride"))
    made: Tensor = cls.__tensor_unflatten__(dict(parts), context, shape, stride)
    if type(made) is not cls or made.shape != shape:
        raise ValueError(f"{cls.__qualname__} of shape {shape} was restored as {type(made)}")
    return made


def _sizes(json: Json) -> torch.Size:
    valid = type(json) is list and all(type(size) is int and 0 <= size < 1 << 63 for size in json)
    if not valid or math.prod(json) >> 63:
        raise ValueError(f"{str(json)[:80]} are no sizes of a tensor")
    return torch.Size(json)


def _sparse_outline(tensor: Tensor) -> dict[str, Json]:
    """Describe a sparse tensor without its indices and values; refuse blocks of size 0."""
    if _blocks(_KINDS[tensor.layout]):
        compressed, _, values = (part for _, part in _sparse_parts(tensor))
        _check_blocks(_KINDS[tensor.layout], values, compressed.ndim)
    scalars: dict[str, Json] = {"shape": list(tensor.shape), "dtype": dtype_name(tensor.dtype)}
    if tensor.layout == torch.sparse_coo:
        scalars["coalesced"] = tensor.is_coalesced()
    return scalars


def _sparse_parts(tensor: Tensor) -> list[tuple[str, Tensor]]:
    """Return the dense parts of a sparse tensor, named after torch's accessors."""
    found: Any = parts_of(tensor)
    return [(name, part) for name, part in found.items() if isinstance(part, Tensor)]


def _sparse(kind: str, scalars: Mapping[str, Json], parts: Mapping[str, Any]) -> Tensor:
    """Build the sparse tensor that the outline and the parts describe, in their memory."""
    names = _INDICES[kind]
    if set(parts) != {*names, "values"} or not all(type(each) is Tensor for each in parts.values()):
        raise ValueError(f"a {kind} tensor has the parts {', '.join(parts)}")
    shape, values = _sizes(scalars.get("shape")), parts["values"]
    if scalars.get("dtype") != dtype_name(values.dtype):
        raise ValueError(f"a {kind} tensor of {scalars.get('dtype')} has values of {values.dtype}")
    indices = [parts[name] for name in names]
    _check_indices(kind, indices, shape, values)
    data: list[Any] = [*indices, values, shape]
    options: dict[str, Any] = {"device": values.device, "check_invariants": True}
    try:
        if kind != "sparse_coo":
            return torch.sparse_compressed_tensor(*data, layout=_LAYOUTS[kind], **options)
        if type(scalars.get("coalesced")) is not bool:
            raise ValueError("it is not said whether a sparse_coo tensor is coalesced")
        options["is_coalesced"] = scalars["coalesced"]
        return torch.sparse_coo_tensor(*data, **options)
    except RuntimeError as error:
        raise ValueError(f"a {kind} tensor is malformed: {error}") from error


def _check_indices(kind: str, indices: list[Tensor], shape: torch.Size, values: Tensor) -> None:
    """Check what torch does not check itself."""
    allowed = (torch.int64,) if kind == "sparse_coo" else (torch.int64, torch.int32)
    for each in indices:
        if each.dtype not in allowed or each.device != values.device:
            raise ValueError(f"a {kind} tensor has indices of {each.dtype} on {each.device}")
    if kind != "sparse_coo":
        first = indices[0].ndim
        if values.shape[first + _blocks(kind) :] != shape[first + 1 :]:
            raise ValueError(f"a {kind} tensor of shape {shape} has values of {values.shape}")
        _check_blocks(kind, values, first)


def _check_blocks(kind: str, values: Tensor, first: int) -> None:
    """Refuse empty blocks: torch accepts such tensors, but divides by the block size later."""
    if 0 in values.shape[first : first + _blocks(kind)]:
        raise ValueError(f"a {kind} tensor with blocks of size 0")


def _blocks(kind: str) -> int:
    return 2 if kind in ("sparse_bsr", "sparse_bsc") else 0
