"""Encode the inner nodes of a tree as JSON: kind, name of the class, and keyed children.

A dict with plain string keys becomes a JSON object and a list a JSON array, so a manifest looks
like the tree it describes. Everything else is an object whose first key is a tag that starts with
``$``. A dict with such keys, or with keys that are not strings, becomes a list of pairs.

A composite leaf, such as a sparse tensor, is a node too: its children are its tensors, and its
scalars the rest.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import attrs

from functrain.checkpoint.format.scalars import Json, decode_scalar, encode_scalar
from functrain.errors import UnsupportedError
from functrain.tree import FrozenDict, NamedDict, Path, Tree, children, path_string
from functrain.tree.nodes import Key

_CLASSES = ("attrs", "namedtuple")
_PLAIN: dict[type, str] = {
    dict: "dict",
    FrozenDict: "dict",
    NamedDict: "dict",
    OrderedDict: "OrderedDict",
    list: "list",
    tuple: "tuple",
}
_PLAIN_KINDS = frozenset(_PLAIN.values())
COMPOSITES: dict[str, str] = {
    "sparse_coo": "a sparse COO tensor",
    "sparse_csr": "a sparse CSR tensor",
    "sparse_csc": "a sparse CSC tensor",
    "sparse_bsr": "a sparse BSR tensor",
    "sparse_bsc": "a sparse BSC tensor",
    "array": "a NumPy array",
    "generator": "a generator",
    "subclass": "a subclass of Tensor",
}


@attrs.frozen
class Node:
    """One inner node, or one composite leaf.

    Attributes:
        kind: ``dict``, ``OrderedDict``, ``list``, ``tuple``, ``namedtuple``, ``attrs`` or a key
            of ``COMPOSITES``.
        children: (key, child) in order.
        name: qualified name of the class, for ``namedtuple`` and ``attrs``.
        scalars: the scalar fields of a composite leaf as JSON; empty for other nodes.
    """

    kind: str
    children: list[tuple[Key, Any]]
    name: str | None = None
    scalars: dict[str, Json] = attrs.field(factory=dict)


# Names in manifests are part of the format: they stay when functrain's modules move.
_FORMAT_NAMES = {
    "functrain.core.rng.Rng": "functrain.rng.Rng",
    "functrain.core.state.Counters": "functrain.state.Counters",
    "functrain.core.state.TrainState": "functrain.state.TrainState",
    "functrain.own_steps.states.CustomState": "functrain.state.CustomState",
    "functrain.own_steps.states.JointState": "functrain.state.JointState",
    "functrain.checkpoint.run_state.LoopState": "functrain.run_state.LoopState",
    "functrain.checkpoint.run_state.RunState": "functrain.run_state.RunState",
}


def qualified_name(cls: type) -> str:
    """Return the name of a class in a manifest."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    return _FORMAT_NAMES.get(name, name)


def node_of(tree: Tree, path: Path) -> Node:
    """Describe an inner node of a tree."""
    cls = type(tree)
    if cls in _PLAIN:
        for key in tree if isinstance(tree, dict) else ():
            if type(key) is not str and type(key) is not int:
                raise UnsupportedError(
                    f"{path_string(path)} has the key {key!r} ({type(key).__name__}); a checkpoint "
                    "holds dicts with keys of type str or int"
                )
        return Node(_PLAIN[cls], children(tree))
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return Node("namedtuple", children(tree), qualified_name(cls))
    if attrs.has(cls) and all(field.init for field in attrs.fields(cls)):
        return Node("attrs", children(tree), qualified_name(cls))
    raise UnsupportedError(
        f"{path_string(path)} is a {qualified_name(cls)}, which a checkpoint cannot rebuild; "
        "use a dict, list, tuple, NamedTuple or an attrs class without init=False fields"
    )


def encode_node(node: Node) -> Json:
    """Encode a node whose children are JSON already.

    Example:
        >>> encode_node(Node("tuple", [(0, 1.0), (1, 2.0)]))
        {'$tuple': [1.0, 2.0]}
        >>> encode_node(Node("dict", [(7, "seven")]))
        {'$dict': [[7, 'seven']]}
        >>> encode_node(Node("generator", [("state", {"$tensor": 0})], None, {"device": "cpu"}))
        {'$generator': {'device': 'cpu'}, 'tensors': {'state': {'$tensor': 0}}}
    """
    if node.kind in COMPOSITES:
        return {f"${node.kind}": node.scalars, "tensors": dict(node.children)}
    if node.kind in _CLASSES:
        return {f"${node.kind}": node.name, "fields": dict(node.children)}
    if node.kind in ("list", "tuple"):
        values = [child for _, child in node.children]
        return values if node.kind == "list" else {"$tuple": values}
    if node.kind == "dict" and all(_is_plain_key(key) for key, _ in node.children):
        return dict(node.children)
    return {f"${node.kind}": [[encode_scalar(key), child] for key, child in node.children]}


def decode_node(json: Json) -> Node | None:
    """Decode a node without its children; return ``None`` for a leaf."""
    if type(json) is list:
        return Node("list", list(enumerate(json)))
    if type(json) is not dict:
        return None
    tag = next(iter(json), "")
    if tag[:1] != "$":
        return Node("dict", list(json.items()))
    kind, value = tag[1:], json[tag]
    if kind in _CLASSES:
        return Node(kind, _named(kind, json, "fields"), _checked(value, str, kind))
    if kind in COMPOSITES:
        scalars: dict[str, Json] = _checked(value, dict, kind)
        return Node(kind, _named(kind, json, "tensors"), None, scalars)
    if kind not in _PLAIN_KINDS:
        return None
    values: list[Json] = _checked(value, list, kind)
    if kind in ("list", "tuple"):
        return Node(kind, list(enumerate(values)))
    return Node(kind, [_pair(kind, each) for each in values])


def inner_node(json: Json) -> Node | None:
    """Decode an inner node; return ``None`` for any leaf, composite ones included."""
    node = decode_node(json)
    return None if node is None or node.kind in COMPOSITES else node


def _named(kind: str, json: dict[str, Json], field: str) -> list[tuple[Key, Json]]:
    if set(json) != {f"${kind}", field} or type(json[field]) is not dict:
        raise ValueError(f"malformed {kind} node")
    return list(json[field].items())


def _checked(value: Json, cls: type, kind: str) -> Any:
    if type(value) is not cls:
        raise ValueError(f"malformed {kind} node")
    return value


def _pair(kind: str, json: Json) -> tuple[Key, Json]:
    if type(json) is not list or len(json) != 2:
        raise ValueError(f"malformed {kind} node")
    key = decode_scalar(json[0])
    if type(key) is not str and type(key) is not int:
        raise ValueError(f"a {kind} has the key {key!r}, which is neither str nor int")
    return key, json[1]


def _is_plain_key(key: Key) -> bool:
    return type(key) is str and key[:1] != "$" and (key.isascii() or encode_scalar(key) == key)
