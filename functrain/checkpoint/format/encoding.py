"""Encode a tree as JSON and a list of tensors, and decode it.

Only classes that the caller allows, by ``like`` or ``types``, are instantiated. A name in a file
never imports anything.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import attrs
from torch import Tensor

from functrain.checkpoint.format.composites import composite_kind, from_parts, to_parts
from functrain.checkpoint.format.mismatches import Anything, expected_below
from functrain.checkpoint.format.scalars import Json, decode_scalar, encode_scalar, is_scalar
from functrain.checkpoint.format.structure import (
    COMPOSITES,
    Node,
    decode_node,
    encode_node,
    node_of,
    qualified_name,
)
from functrain.checkpoint.run_state import LoopState, RunState
from functrain.core.rng import Rng
from functrain.core.state import Counters, TrainState
from functrain.errors import CheckpointTypeError, UnsupportedError
from functrain.own_steps.states import CustomState, JointState, joint_class
from functrain.tree import Path, Tree, is_node, path_string
from functrain.tree.nodes import Key

OWN_TYPES: tuple[type, ...] = (
    TrainState,
    CustomState,
    JointState,
    Counters,
    Rng,
    RunState,
    LoopState,
)
_DEEPEST = 200
_PLAIN = frozenset((type(None), bool, int, float, str))


@attrs.frozen(eq=False)
class _Encoded:
    """The tensors found so far, and composite leaves by identity."""

    tensors: list[tuple[Path, Tensor]] = attrs.field(factory=list)
    composites: dict[int, tuple[Node, Any]] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class _Decoding:
    """The inputs of decoding: tensors, allowed classes, and composite leaves built so far."""

    tensors: Sequence[Tensor]
    types: Mapping[str, type]
    made: dict[tuple[Any, ...], Any] = attrs.field(factory=dict)


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
    if len(path) >= _DEEPEST:
        raise UnsupportedError(
            f"{path_string(path[:4])}... is deeper than {_DEEPEST} levels; does it hold itself?"
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
    if len(path) >= _DEEPEST:
        raise UnsupportedError(f"{path_string(path[:4])}... is deeper than {_DEEPEST} levels")
    scalars = node.scalars
    if kind == "subclass":
        scalars = {**scalars, "context": encode_plain(context, *path, "context")}
    parts = [(key, _encode(part, (*path, key), encoded)) for key, part in node.children]
    return encode_node(Node(kind, parts, None, scalars))


def decode(
    json: Json, tensors: Sequence[Tensor], like: Any = Anything, types: Sequence[type] = ()
) -> Tree:
    """Build a tree; inverse of :func:`encode`.

    The classes in ``like`` are allowed at their places, those in ``types`` anywhere.

    Example:
        >>> decode({"lr": {"$tuple": [0.1, None]}}, [])
        {'lr': (0.1, None)}
    """
    allowed = {qualified_name(cls): cls for cls in (*OWN_TYPES, *types)}
    return _decode(json, like, _Decoding(tensors, allowed), ())


def _decode(json: Json, like: Any, given: _Decoding, path: Path) -> Any:
    if type(json) in _PLAIN:
        return json
    if type(json) is dict:
        tag = next(iter(json), "")
        if tag == "$tensor":
            return _tensor(json[tag], given.tensors)
        if tag == "$enum":
            return _decode_enum(json, like, given.types)
    node = decode_node(json)
    if node is None:
        return decode_scalar(json)
    if len(path) >= _DEEPEST:
        raise ValueError(f"{path_string(path[:4])}... is deeper than {_DEEPEST} levels")
    below = expected_below(like)
    children = [
        (key, _decode(child, below.get(key, Anything), given, (*path, key)))
        for key, child in node.children
    ]
    if node.kind in COMPOSITES:
        return _composite(node, dict(children), like, given, path)
    return _rebuilt(node, children, like, given.types)


def _tensor(index: Json, tensors: Sequence[Tensor]) -> Tensor:
    if type(index) is not int or not 0 <= index < len(tensors):
        raise ValueError(f"there is no tensor {index!r}")
    return tensors[index]


def _decode_enum(json: dict[str, Json], like: Any, types: Mapping[str, type]) -> Enum:
    cls = _allowed_class(json["$enum"], like, types)
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
            cls = _allowed_class(scalars.get("class"), like, given.types)
            context = _decode(scalars.get("context"), Anything, given, (*path, "context"))
        # Keeps the parts alive: otherwise a new object could reuse their id.
        given.made[key] = from_parts(node, parts, like, cls, context, path), parts
    return given.made[key][0]


def _rebuilt(
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
    if node.kind == "tuple" or (
        node.kind == "namedtuple" and not _is_allowed(node.name, like, types)
    ):
        return tuple(values)
    cls = _allowed_class(node.name, like, types)
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


def _is_allowed(name: Any, like: Any, types: Mapping[str, type]) -> bool:
    return qualified_name(type(like)) == name or name in types


def _allowed_class(name: Any, like: Any, types: Mapping[str, type]) -> Any:
    """Return the class of a name if it is that of ``like`` or among ``types``; else raise."""
    if qualified_name(type(like)) == name:
        return type(like)
    if type(name) is not str or name not in types:
        raise CheckpointTypeError(
            f"the checkpoint holds a {name}, and loading instantiates only allowed classes; "
            "give the class in types=(...), or a tree that has it in like="
        )
    return types[name]
