"""Rebuild inner nodes, instantiating only the classes that the caller allows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import attrs

from functrain.checkpoint.format.structure import Node, qualified_name
from functrain.errors import CheckpointTypeError
from functrain.own_steps.states import JointState, joint_class
from functrain.tree import Tree


def rebuild(
    node: Node, children: list[tuple[Any, Any]], like: Any, types: Mapping[str, type]
) -> Tree:
    """Build the tree of a node.

    ``like`` is the expected value, whose class is allowed; ``types`` has further allowed classes.
    """
    values = [child for _, child in children]
    if node.kind == "list":
        return values
    if node.kind in ("dict", "OrderedDict"):
        return dict(children) if node.kind == "dict" else OrderedDict(children)
    if node.kind == "tuple" or (node.kind == "namedtuple" and not _allowed(node.name, like, types)):
        return tuple(values)
    cls = allowed_class(node.name, like, types)
    if cls is JointState:  # one of each set of programs; their names are those of the fields
        cls = joint_class(tuple(str(key) for key, _ in children[:-2]))
    if node.kind == "attrs" and attrs.has(cls):
        names = {field.name: field.alias for field in attrs.fields(cls)}
    elif node.kind == "namedtuple" and issubclass(cls, tuple) and hasattr(cls, "_fields"):
        names = {name: name for name in cls._fields}
    else:
        raise ValueError(f"{node.name} was saved as a {node.kind}, which it is not")
    if {key for key, _ in children} != set(names):
        raise CheckpointTypeError(
            f"{node.name} was saved with the fields {', '.join(str(key) for key, _ in children)}, "
            f"but has {', '.join(names)} now"
        )
    try:
        return cls(**{names[key]: value for key, value in children})
    except Exception as error:  # the class's own code: nothing is wrong with the file
        raise CheckpointTypeError(f"{node.name} does not take its saved fields: {error}") from error


def _allowed(name: Any, like: Any, types: Mapping[str, type]) -> bool:
    return qualified_name(type(like)) == name or name in types


def allowed_class(name: Any, like: Any, types: Mapping[str, type]) -> Any:
    """Return the class of a name if it is that of ``like`` or among ``types``; else raise."""
    if qualified_name(type(like)) == name:
        return type(like)
    if type(name) is not str or name not in types:
        raise CheckpointTypeError(
            f"the checkpoint holds a {name}, and loading instantiates only allowed classes; "
            "give the class in types=(...), or a tree that has it in like="
        )
    return types[name]
