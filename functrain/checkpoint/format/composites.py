"""Convert composite leaves to dense tensors and back.

Composite leaves are sparse tensors, NumPy arrays, generators, and subclasses of Tensor with
``__tensor_flatten__`` and ``__tensor_unflatten__``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from functrain.checkpoint.format import numpy_arrays, sparse
from functrain.checkpoint.format.dtypes import dtype_name
from functrain.checkpoint.format.scalars import Json
from functrain.checkpoint.format.structure import Node, qualified_name
from functrain.checkpoint.format.tensor_bytes import is_here
from functrain.errors import CheckpointDeviceError, UnsupportedError
from functrain.tree import Path, path_string
from functrain.tree.placed import is_placed

_DENSE = (Tensor, torch.nn.Parameter)


def composite_kind(leaf: object) -> str | None:
    """Return the kind of a composite leaf, or ``None`` for any other leaf."""
    if isinstance(leaf, Tensor):
        if is_placed(leaf):
            return None  # a plain tensor, of which each rank holds a part
        return sparse.KINDS.get(leaf.layout) if type(leaf) in _DENSE else "subclass"
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
            return numpy_arrays.outline(leaf) if kind == "array" else sparse.outline(leaf)
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
        parts = [*sparse.parts(leaf)]
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
        return sparse.build(node.kind, node.scalars, parts)
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
    if type(json) is not list or not all(type(size) is int and size >= 0 for size in json):
        raise ValueError(f"{json!r} are no sizes")
    return torch.Size(json)
