"""A tree as JSON and a list of tensors, and back.

Only classes that the caller shows, in ``like`` or in ``types``, are ever made; a name in a file
imports nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import attrs
from torch import Tensor

from functrain.checkpoint.matching import Anything, child_of
from functrain.checkpoint.scalars import Json, decode_scalar, encode_scalar, is_scalar
from functrain.checkpoint.structure import (
    Node,
    decode_node,
    encode_node,
    node_of,
    qualified_name,
)
from functrain.errors import CheckpointTypeError, UnsupportedLeafError
from functrain.rng import Rng
from functrain.state import Counters, TrainState
from functrain.tree import Path, Tree, is_node, path_string

OWN_TYPES: tuple[type, ...] = (TrainState, Counters, Rng)
_DEEPEST = 200


def encode(tree: Tree, path: Path = ()) -> tuple[Json, list[tuple[Path, Tensor]]]:
    """Take a tree apart.

    Args:
        tree: dicts, lists, tuples and attrs instances of tensors and scalars.
        path: where the tree stands, for messages.

    Returns:
        (structure as JSON, tensors with their paths); ``{"$tensor": 3}`` stands for the fourth.

    Raises:
        UnsupportedLeafError: a leaf or node that could not be given back exactly.

    Example:
        >>> encode({"lr": (0.1, None)})
        ({'lr': {'$tuple': [0.1, None]}}, [])
    """
    tensors: list[tuple[Path, Tensor]] = []
    return _encode(tree, path, tensors), tensors


def encode_plain(data: Any, name: str) -> Json:
    """Data without tensors as JSON.

    Raises:
        UnsupportedLeafError: ``data``, called ``name`` in the message, is not plain.
    """
    json, tensors = encode(data, (name,))
    if tensors:
        raise UnsupportedLeafError(
            f"{path_string(tensors[0][0])} is a tensor; tensors belong into the tree"
        )
    return json


def _encode(tree: Tree, path: Path, tensors: list[tuple[Path, Tensor]]) -> Json:
    if isinstance(tree, Tensor):
        tensors.append((path, tree))
        return {"$tensor": len(tensors) - 1}
    if is_scalar(tree):
        return encode_scalar(tree)
    if isinstance(tree, Enum):
        if not is_scalar(tree.value):
            raise UnsupportedLeafError(f"{path_string(path)}: the value of {tree!r} is no scalar")
        return {"$enum": qualified_name(type(tree)), "value": encode_scalar(tree.value)}
    if not is_node(tree):
        raise UnsupportedLeafError(
            f"{path_string(path)} is a {qualified_name(type(tree))}; a checkpoint holds tensors "
            "and Python scalars (None, bool, int, float, complex, str, bytes, Enum)"
        )
    if len(path) >= _DEEPEST:
        raise UnsupportedLeafError(
            f"{path_string(path[:4])}... is deeper than {_DEEPEST} levels; does it hold itself?"
        )
    node = node_of(tree, path)
    encoded = [(key, _encode(child, (*path, key), tensors)) for key, child in node.children]
    return encode_node(attrs.evolve(node, children=encoded))


def decode(
    json: Json, tensors: Sequence[Tensor], like: Any = Anything, types: Sequence[type] = ()
) -> Tree:
    """Put a tree together again; inverse of :func:`encode`.

    Args:
        json: the structure.
        tensors: what ``{"$tensor": index}`` stands for.
        like: a tree whose classes may be made at its places.
        types: further classes that may be made anywhere.

    Raises:
        CheckpointTypeError: a class that neither ``like`` nor ``types`` shows.
        ValueError: the structure is malformed.

    Example:
        >>> decode({"lr": {"$tuple": [0.1, None]}}, [])
        {'lr': (0.1, None)}
    """
    allowed = {qualified_name(cls): cls for cls in (*OWN_TYPES, *types)}
    return _decode(json, tensors, like, allowed)


def _decode(json: Json, tensors: Sequence[Tensor], like: Any, types: Mapping[str, type]) -> Tree:
    node = decode_node(json)
    if node is None:
        return _decode_leaf(json, tensors, like, types)
    children = [
        (key, _decode(child, tensors, child_of(like, key), types)) for key, child in node.children
    ]
    return _rebuild(attrs.evolve(node, children=children), like, types)


def _decode_leaf(
    json: Json, tensors: Sequence[Tensor], like: Any, types: Mapping[str, type]
) -> Any:
    if isinstance(json, dict) and "$tensor" in json:
        index = json["$tensor"]
        if type(index) is not int or not 0 <= index < len(tensors):
            raise ValueError(f"there is no tensor {index!r}")
        return tensors[index]
    if isinstance(json, dict) and "$enum" in json:
        return _class(json["$enum"], like, types)(decode_scalar(json.get("value")))
    return decode_scalar(json)


def _rebuild(node: Node, like: Any, types: Mapping[str, type]) -> Tree:
    keys, values = [key for key, _ in node.children], [child for _, child in node.children]
    if node.kind == "list":
        return values
    if node.kind == "dict":
        return dict(node.children)
    if node.kind == "OrderedDict":
        return OrderedDict(node.children)
    if node.kind == "tuple" or (node.kind == "namedtuple" and not _shown(node.name, like, types)):
        return tuple(values)
    cls = _class(node.name, like, types)
    fields = {field.name: field.alias for field in attrs.fields(cls)} if attrs.has(cls) else {}
    names = fields or {name: name for name in getattr(cls, "_fields", ())}
    if set(keys) != set(names):
        raise CheckpointTypeError(
            f"{node.name} was saved with the fields {', '.join(map(str, keys))}, "
            f"but has {', '.join(names)} now"
        )
    return cls(**{names[str(key)]: value for key, value in node.children})


def _shown(name: Any, like: Any, types: Mapping[str, type]) -> bool:
    return qualified_name(type(like)) == name or name in types


def _class(name: Any, like: Any, types: Mapping[str, type]) -> Any:
    if qualified_name(type(like)) == name:
        return type(like)
    if name not in types:
        raise CheckpointTypeError(
            f"the checkpoint holds a {name}, and loading makes only classes it is shown; "
            "give the class in types=(...), or a tree that has it in like="
        )
    return types[name]
