"""Choose and rename the leaves of a saved structure by their dotted paths.

These are the options ``only``, ``rename``, ``cast`` and ``partial`` of ``load``. The classes of the
nodes on the way to a leaf do not matter then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs

from functrain.checkpoint.format.scalars import Json
from functrain.checkpoint.format.structure import Node, decode_node, encode_node, inner_node
from functrain.checkpoint.rename import rename_leaves
from functrain.tree import Path, path_string

_CLASSES = ("attrs", "namedtuple")
DROPPED = object()


@attrs.frozen
class PathOptions:
    """The allowed differences between a checkpoint and ``like``; see ``load``."""

    only: tuple[str, ...] | None = None
    rename: Mapping[str, str] = attrs.field(factory=dict)
    cast: bool = False
    partial: bool = False

    @classmethod
    def of(
        cls,
        only: str | Sequence[str] | None = None,
        rename: Mapping[str, str] | None = None,
        cast: bool = False,
        partial: bool = False,
    ) -> PathOptions:
        """Convert the arguments of :func:`functrain.checkpoint.load`."""
        globs = (only,) if isinstance(only, str) else None if only is None else tuple(only)
        return cls(globs, dict(rename or {}), cast, partial)

    def wants(self, path: str) -> bool:
        """Return whether to load the leaf at a path."""
        return self.only is None or any(
            fnmatchcase(path, glob) or fnmatchcase(path, f"{glob}.*") for glob in self.only
        )


def without_classes(json: Json) -> Json:
    """Replace the classes in a structure by dicts of their fields."""
    node = inner_node(json)
    if node is None:
        return json
    kind = "dict" if node.kind in _CLASSES else node.kind
    return encode_node(Node(kind, [(key, without_classes(child)) for key, child in node.children]))


def select(json: Json, wants: Callable[[str], bool], path: Path = ()) -> Json:
    """Return a structure of the wanted leaves only; a node that loses some becomes a dict.

    Example:
        >>> select({"a": {"$tuple": [1, 2]}, "b": 3}, lambda path: path == "a.1")
        {'a': {'$dict': [[1, 2]]}}
    """
    left = selected(json, wants, path)
    return {} if left is DROPPED else left


def selected(json: Json, wants: Callable[[str], bool], path: Path) -> Any:
    """Return :func:`select` of a structure, or ``DROPPED`` if nothing is left."""
    node = inner_node(json)
    if node is None or not node.children:
        return json if wants(path_string(path)) else DROPPED
    below = [(key, selected(child, wants, (*path, key))) for key, child in node.children]
    left = [(key, child) for key, child in below if child is not DROPPED]
    if len(left) == len(below):
        return json
    return encode_node(Node("dict", left)) if left else DROPPED


def _entries(json: Json, path: Path = ()) -> Iterator[tuple[str, Json]]:
    """Yield every node and leaf of a structure with its dotted path."""
    yield path_string(path), json
    node = inner_node(json)
    for key, child in node.children if node is not None else ():
        yield from _entries(child, (*path, key))


def renamed(
    json: Json, options: PathOptions
) -> tuple[dict[str, Json], list[str], Mapping[str, int]]:
    """Return the structure by new path, a sentence about each problem, and uses of saved paths."""
    found = list(_entries(json))
    counts = Counter(name for name, _ in found)
    return *rename_leaves(dict(found), options.rename, counts), counts


def indices(json: Json) -> Iterator[int]:
    """Yield the indices of the tensors in a structure."""
    if isinstance(json, dict) and type(json.get("$tensor")) is int:
        yield json["$tensor"]
        return
    node = decode_node(json)
    for _, child in node.children if node is not None else ():
        yield from indices(child)
