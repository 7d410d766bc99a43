"""Decode a tree from JSON and a list of tensors.

Only classes that the caller allows, by ``like`` or ``types``, are instantiated. A name in a file
never imports anything.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Any

import attrs
from torch import Tensor

from functrain.checkpoint.format.composites import from_parts
from functrain.checkpoint.format.encoding import DEEPEST
from functrain.checkpoint.format.scalars import Json, decode_scalar, is_scalar
from functrain.checkpoint.format.structure import COMPOSITES, Node, decode_node, qualified_name
from functrain.errors import CheckpointTypeError
from functrain.tree import Path, Tree, children, is_node, path_string

_PLAIN = frozenset((type(None), bool, int, float, str))
# Classes by name; of those that differ by their fields, a function from the names of the fields.
Classes = Mapping[str, Any]


class Anything:
    """A placeholder in ``like`` that accepts any saved subtree; use the class or an instance.

    Example:
        >>> is_anything(Anything), is_anything(Anything()), is_anything(None)
        (True, True, False)
    """


def is_anything(like: Any) -> bool:
    """Return whether ``like`` accepts any saved subtree."""
    return like is Anything or isinstance(like, Anything)


def expected_below(like: Any) -> Mapping[Any, Any]:
    """Return the expected child at each key of ``like``; empty for leaves and ``Anything``."""
    if isinstance(like, dict):
        return like
    if isinstance(like, Tensor):
        flatten = getattr(like, "__tensor_flatten__", None)
        return {} if flatten is None else {name: getattr(like, name) for name in flatten()[0]}
    return dict(children(like)) if is_node(like) and not is_scalar(like) else {}


@attrs.frozen(eq=False)
class _Decoding:
    """The inputs of decoding: tensors, allowed classes, and composite leaves built so far."""

    tensors: Sequence[Tensor]
    classes: Classes
    made: dict[tuple[Any, ...], Any] = attrs.field(factory=dict)


def decode(
    json: Json,
    tensors: Sequence[Tensor],
    like: Any = Anything,
    types: Sequence[type] = (),
    families: Classes = MappingProxyType({}),
) -> Tree:
    """Build a tree; inverse of :func:`encode`.

    The classes in ``like`` are allowed at their places, those in ``types`` anywhere;
    ``families`` are functions by the name of a class from the names of its fields to the class.

    Example:
        >>> decode({"lr": {"$tuple": [0.1, None]}}, [])
        {'lr': (0.1, None)}
    """
    allowed = {**{qualified_name(cls): cls for cls in types}, **families}
    return _decode(json, like, _Decoding(tensors, allowed), ())


def _decode(json: Json, like: Any, given: _Decoding, path: Path) -> Any:
    if type(json) in _PLAIN:
        return json
    if type(json) is dict:
        tag = next(iter(json), "")
        if tag == "$tensor":
            return _tensor(json[tag], given.tensors)
        if tag == "$enum":
            return _decode_enum(json, like, given.classes)
    node = decode_node(json)
    if node is None:
        return decode_scalar(json)
    if len(path) >= DEEPEST:
        raise ValueError(f"{path_string(path[:4])}... is deeper than {DEEPEST} levels")
    below = expected_below(like)
    children = [
        (key, _decode(child, below.get(key, Anything), given, (*path, key)))
        for key, child in node.children
    ]
    if node.kind in COMPOSITES:
        return _composite(node, dict(children), like, given, path)
    return _rebuilt(node, children, like, given.classes)


def _tensor(index: Json, tensors: Sequence[Tensor]) -> Tensor:
    if type(index) is not int or not 0 <= index < len(tensors):
        raise ValueError(f"there is no tensor {index!r}")
    return tensors[index]


def _decode_enum(json: dict[str, Json], like: Any, classes: Classes) -> Enum:
    cls = _allowed_class(json["$enum"], like, classes)
    if not issubclass(cls, Enum):
        raise ValueError(f"{json['$enum']} is no Enum")
    member: Enum = cls(decode_scalar(json.get("value")))
    return member


def _composite(node: Node, parts: dict[Any, Any], like: Any, given: _Decoding, path: Path) -> Any:
    scalars = node.scalars
    # Leaves with the same parts were one object when saved, so they must be one again.
    key = (node.kind, repr(scalars), *((name, id(part)) for name, part in parts.items()))
    if key not in given.made:
        cls = context = None
        if node.kind == "subclass":
            cls = _allowed_class(scalars.get("class"), like, given.classes)
            context = _decode(scalars.get("context"), Anything, given, (*path, "context"))
        # Keeps the parts alive: otherwise a new object could reuse their id.
        given.made[key] = from_parts(node, parts, like, cls, context, path), parts
    return given.made[key][0]


def _rebuilt(node: Node, children: list[tuple[Any, Any]], like: Any, classes: Classes) -> Tree:
    """Build the tree of a node.

    ``like`` is the expected value, whose class is allowed; ``classes`` has further allowed ones.
    """
    values = [child for _, child in children]
    if node.kind == "list":
        return values
    if node.kind in ("dict", "OrderedDict"):
        return dict(children) if node.kind == "dict" else OrderedDict(children)
    if node.kind == "tuple" or (
        node.kind == "namedtuple" and not _is_allowed(node.name, like, classes)
    ):
        return tuple(values)
    cls = _allowed_class(node.name, like, classes)
    if not isinstance(cls, type):
        cls = cls(tuple(str(key) for key, _ in children))
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


def _is_allowed(name: Any, like: Any, classes: Classes) -> bool:
    return qualified_name(type(like)) == name or name in classes


def _allowed_class(name: Any, like: Any, classes: Classes) -> Any:
    """Return the class of a name if it is that of ``like`` or among ``classes``; else raise."""
    if qualified_name(type(like)) == name:
        return type(like)
    if type(name) is not str or name not in classes:
        raise CheckpointTypeError(
            f"the checkpoint holds a {name}, and loading instantiates only allowed classes; "
            "give the class in types=(...), or a tree that has it in like="
        )
    return classes[name]
