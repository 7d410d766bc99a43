"""Encode a tree as JSON and a list of tensors."""

from __future__ import annotations

from enum import Enum
from typing import Any

import attrs
from torch import Tensor

from functrain.checkpoint.format.composites import composite_kind, to_parts
from functrain.checkpoint.format.scalars import Json, encode_scalar, is_scalar
from functrain.checkpoint.format.structure import Node, encode_node, node_of, qualified_name
from functrain.errors import UnsupportedError
from functrain.tree import Path, Tree, is_node, path_string
from functrain.tree.nodes import Key

DEEPEST = 200


@attrs.frozen(eq=False)
class _Encoded:
    """The tensors found so far, and composite leaves by identity."""

    tensors: list[tuple[Path, Tensor]] = attrs.field(factory=list)
    composites: dict[int, tuple[Node, Any]] = attrs.field(factory=dict)


def encode(tree: Tree, path: Path = ()) -> tuple[Json, list[tuple[Path, Tensor]]]:
    """Encode a tree as (structure as JSON, tensors with their paths).

    ``{"$tensor": 3}`` stands for the fourth tensor.

    Example:
        >>> encode({"lr": (0.1, None)})
        ({'lr': {'$tuple': [0.1, None]}}, [])
        >>> import torch
        >>> encode({"mask": torch.eye(2).to_sparse()})[0]["mask"]["tensors"]
        {'indices': {'$tensor': 0}, 'values': {'$tensor': 1}}
    """
    encoded = _Encoded()
    return _encode(tree, path, encoded), encoded.tensors


def encode_plain(data: Any, *path: Key) -> Json:
    """Encode data without tensors as JSON."""
    json, tensors = encode(data, path)
    if tensors:
        raise UnsupportedError(
            f"{path_string(tensors[0][0])} is a tensor; tensors belong in the tree"
        )
    return json


def _encode(tree: Tree, path: Path, encoded: _Encoded) -> Json:
    kind = composite_kind(tree)
    if kind is not None:
        return _encode_composite(kind, tree, path, encoded)
    if isinstance(tree, Tensor):
        encoded.tensors.append((path, tree))
        return {"$tensor": len(encoded.tensors) - 1}
    if is_scalar(tree):
        return _encode_scalar(tree, path)
    if isinstance(tree, Enum):
        return _encode_enum(tree, path)
    if not is_node(tree):
        raise UnsupportedError(
            f"{path_string(path)} is a {qualified_name(type(tree))}; a checkpoint holds tensors, "
            "NumPy arrays, generators and scalars (None, bool, int, float, complex, str, bytes, "
            "Enum, torch.Size, torch.dtype, torch.device, NumPy's)"
        )
    if len(path) >= DEEPEST:
        raise UnsupportedError(
            f"{path_string(path[:4])}... is deeper than {DEEPEST} levels; does it hold itself?"
        )
    node = node_of(tree, path)
    children = [(key, _encode(child, (*path, key), encoded)) for key, child in node.children]
    return encode_node(Node(node.kind, children, node.name))


def _encode_scalar(value: Any, path: Path) -> Json:
    try:
        return encode_scalar(value)
    except ValueError as error:
        raise UnsupportedError(f"{path_string(path)} has {error}") from error


def _encode_enum(member: Enum, path: Path) -> Json:
    value, cls = member.value, type(member)
    # NaN does not equal itself, so loading could not find a member with that value.
    if not is_scalar(value) or value != value:
        raise UnsupportedError(
            f"{path_string(path)}: the value of {member!r} is no scalar that finds it again"
        )
    return {"$enum": qualified_name(cls), "value": _encode_scalar(value, path)}


def _encode_composite(kind: str, leaf: Any, path: Path, encoded: _Encoded) -> Json:
    # Convert the same object once: reading a generator's state allocates new memory each time.
    if id(leaf) not in encoded.composites:
        encoded.composites[id(leaf)] = to_parts(kind, leaf, path)
    node, context = encoded.composites[id(leaf)]
    if len(path) >= DEEPEST:
        raise UnsupportedError(f"{path_string(path[:4])}... is deeper than {DEEPEST} levels")
    scalars = node.scalars
    if kind == "subclass":
        scalars = {**scalars, "context": encode_plain(context, *path, "context")}
    parts = [(key, _encode(part, (*path, key), encoded)) for key, part in node.children]
    return encode_node(Node(kind, parts, None, scalars))
