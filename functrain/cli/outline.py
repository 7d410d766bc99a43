"""The tree of a checkpoint as its manifest tells it: any tree, without making a class of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import orjson

from functrain.checkpoint import Leaf, Manifest
from functrain.checkpoint.format.scalars import Json, decode_scalar
from functrain.checkpoint.format.structure import Node, decode_node
from functrain.errors import CheckpointCorruptError
from functrain.tree import Path, path_string

_MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError)


@attrs.frozen(eq=False)
class Branch:
    """An inner node.

    Attributes:
        path: keys from the root.
        kind: ``dict``, ``list``, ``attrs`` and so on, or a kind that is not known here.
        name: qualified name of its class, where it has one.
        size: number of children.
        scalars: JSON of what else belongs to it, such as the size of a sparse tensor.
    """

    path: Path
    kind: str
    name: str | None
    size: int
    scalars: Json = None

    @property
    def title(self) -> str:
        """The kind in few words: the last part of a class's name."""
        return self.kind if self.name is None else self.name.rpartition(".")[2]


@attrs.frozen(eq=False)
class TensorLeaf:
    """A tensor: its place, what the manifest says of it, and its index there."""

    path: Path
    leaf: Leaf
    index: int


@attrs.frozen(eq=False)
class Scalar:
    """A scalar: its place, its value, and the JSON that gives it back exactly."""

    path: Path
    value: Any
    json: Json


Entry = Branch | TensorLeaf | Scalar


def outline(manifest: Manifest) -> Iterator[Entry]:
    """Walk a saved tree, each node before what is in it.

    Args:
        manifest: of the checkpoint; of a newer minor version too, whose unknown nodes are walked
            where they hold tensors and shown as JSON where they do not.

    Raises:
        CheckpointCorruptError: its structure is malformed.

    Example:
        >>> import tempfile, torch
        >>> from functrain.checkpoint import read_manifest, save
        >>> place = save(tempfile.mkdtemp() + "/tree", {"w": torch.ones(2), "lr": 0.1})
        >>> [(type(entry).__name__, entry.path) for entry in outline(read_manifest(place))]
        [('Branch', ()), ('TensorLeaf', ('w',)), ('Scalar', ('lr',))]
    """
    # Not recursive: a manifest may be deeper than the interpreter's stack.
    waiting: list[tuple[Path, Json]] = [((), manifest.structure)]
    while waiting:
        path, json = waiting.pop()
        try:
            entry, children = _entry(path, json, manifest.leaves)
        except _MALFORMED as error:
            raise CheckpointCorruptError(
                f"the structure is malformed at {path_string(path)}: {error}"
            ) from error
        yield entry
        waiting += reversed(children)


def _entry(
    path: Path, json: Json, leaves: tuple[Leaf, ...]
) -> tuple[Entry, list[tuple[Path, Json]]]:
    if _tag(json) == "$tensor":
        index = json["$tensor"]
        if type(index) is not int or not 0 <= index < len(leaves):
            raise ValueError(f"there is no tensor {index!r}")
        return TensorLeaf(path, leaves[index], index), []
    node = decode_node(json) or _unknown(json)
    if node is None:
        return Scalar(path, _value(json), json), []
    children = [((*path, key), child) for key, child in node.children]
    name = None if node.name is None else str(node.name)
    return Branch(path, node.kind, name, len(children), node.scalars), children


def _tag(json: Json) -> str:
    first = next(iter(json), "") if isinstance(json, dict) else ""
    return first if first.startswith("$") else ""


def _unknown(json: Json) -> Node | None:
    """A tagged object that holds tensors, whatever it stands for."""
    tag = _tag(json)
    if not tag or not _has_tensor(json):
        return None
    name = json[tag] if isinstance(json[tag], str) else None
    fields = [(key, child) for key, child in json.items() if key != tag or name is None]
    return Node(tag[1:], list(fields), name)


def _has_tensor(json: Json) -> bool:
    waiting = [json]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "$tensor" in value:
                return True
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


def _value(json: Json) -> Any:
    if _tag(json) == "$enum":
        return f"{str(json['$enum']).rpartition('.')[2]}({decode_scalar(json.get('value'))!r})"
    try:
        return decode_scalar(json)
    except ValueError:
        return orjson.dumps(json).decode()  # of a newer minor version
