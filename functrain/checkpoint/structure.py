"""The inner nodes of a tree as JSON: their kind, their class by name, their keyed children.

A dict with plain string keys is a JSON object and a list a JSON array, so a manifest looks like
the tree it describes. Everything else is an object whose first key is a tag that starts with
``$``; a dict that has such keys itself, or keys that are no strings, is written as pairs.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import attrs

from functrain.checkpoint.scalars import Json, decode_scalar, encode_scalar
from functrain.errors import UnsupportedLeafError
from functrain.tree import Path, Tree, children, path_string
from functrain.tree.nodes import Key

_CLASSES = ("attrs", "namedtuple")
_PLAIN: dict[type, str] = {dict: "dict", OrderedDict: "OrderedDict", list: "list", tuple: "tuple"}


@attrs.frozen
class Node:
    """One inner node.

    Attributes:
        kind: ``dict``, ``OrderedDict``, ``list``, ``tuple``, ``namedtuple`` or ``attrs``.
        children: (key, child) in order.
        name: qualified name of the class, for the last two kinds.
    """

    kind: str
    children: list[tuple[Key, Any]]
    name: str | None = None


def qualified_name(cls: type) -> str:
    """A class as a manifest names it.

    Example:
        >>> qualified_name(Node)
        'functrain.checkpoint.structure.Node'
    """
    return f"{cls.__module__}.{cls.__qualname__}"


def node_of(tree: Tree, path: Path) -> Node:
    """The kind of an inner node of a tree.

    Raises:
        UnsupportedLeafError: it could not be rebuilt, or a key is neither ``str`` nor ``int``.
    """
    cls = type(tree)
    if cls in _PLAIN:
        for key in tree if isinstance(tree, dict) else ():
            if type(key) not in (str, int):
                raise UnsupportedLeafError(
                    f"{path_string(path)} has the key {key!r} ({type(key).__name__}); a checkpoint "
                    "holds dicts with keys of type str or int"
                )
        return Node(_PLAIN[cls], children(tree))
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return Node("namedtuple", children(tree), qualified_name(cls))
    if attrs.has(cls) and all(field.init for field in attrs.fields(cls)):
        return Node("attrs", children(tree), qualified_name(cls))
    raise UnsupportedLeafError(
        f"{path_string(path)} is a {qualified_name(cls)}, which a checkpoint cannot rebuild; "
        "use a dict, list, tuple, NamedTuple or an attrs class without init=False fields"
    )


def encode_node(node: Node) -> Json:
    """A node as JSON; its children must be JSON already.

    Example:
        >>> encode_node(Node("tuple", [(0, 1.0), (1, 2.0)]))
        {'$tuple': [1.0, 2.0]}
        >>> encode_node(Node("dict", [(7, "seven")]))
        {'$dict': [[7, 'seven']]}
    """
    if node.kind in _CLASSES:
        return {f"${node.kind}": node.name, "fields": dict(node.children)}
    if node.kind in ("list", "tuple"):
        values = [child for _, child in node.children]
        return values if node.kind == "list" else {"$tuple": values}
    if node.kind == "dict" and all(_is_plain_key(key) for key, _ in node.children):
        return dict(node.children)
    return {f"${node.kind}": [[encode_scalar(key), child] for key, child in node.children]}


def decode_node(json: Json) -> Node | None:
    """The node that JSON stands for, with children still JSON; ``None`` for a leaf.

    Raises:
        ValueError: it is malformed.
    """
    if isinstance(json, list):
        return Node("list", list(enumerate(json)))
    if not isinstance(json, dict):
        return None
    tag = next(iter(json), "")
    if not tag.startswith("$"):
        return Node("dict", list(json.items()))
    kind, value = tag[1:], json[tag]
    if kind in _CLASSES:
        fields = json.get("fields")
        if type(value) is not str or not isinstance(fields, dict):
            raise ValueError(f"malformed {kind} node")
        return Node(kind, list(fields.items()), value)
    if kind not in _PLAIN.values():
        return None
    if not isinstance(value, list):
        raise ValueError(f"malformed {kind} node")
    if kind == "tuple":
        return Node(kind, list(enumerate(value)))
    return Node(kind, [(decode_scalar(key), child) for key, child in value])


def _is_plain_key(key: Key) -> bool:
    return isinstance(key, str) and not key.startswith("$") and encode_scalar(key) == key
