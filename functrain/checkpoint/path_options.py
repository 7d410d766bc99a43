"""Choose and rename the leaves of a saved structure by their dotted paths.

These are the options ``only``, ``rename``, ``cast`` and ``partial`` of ``load``. The classes of the
nodes on the way to a leaf do not matter then.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs

from functrain.checkpoint.format.changed_in_use import is_torch_state
from functrain.checkpoint.format.scalars import Json
from functrain.checkpoint.format.structure import Node, decode_node, encode_node, inner_node
from functrain.errors.nearest import nearest
from functrain.tree import Path, path_string
from functrain.tree.nodes import Key

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


def selected(json: Json, wants: Callable[[str], bool], path: Path = ()) -> Any:
    """Return a structure of the wanted leaves only; a node that loses some becomes a dict.

    Return ``DROPPED`` if nothing is left.

    Example:
        >>> selected({"a": {"$tuple": [1, 2]}, "b": 3}, lambda path: path == "a.1")
        {'a': {'$dict': [[1, 2]]}}
    """
    node = inner_node(json)
    if node is None or not node.children:
        return json if wants(path_string(path)) else DROPPED
    below = [(key, selected(child, wants, (*path, key))) for key, child in node.children]
    left = [(key, child) for key, child in below if child is not DROPPED]
    if len(left) == len(below):
        return json
    return encode_node(Node("dict", left)) if left else DROPPED


def entries(json: Json, path: Path = ()) -> Iterator[tuple[str, Json]]:
    """Yield every node and leaf of a structure with its dotted path."""
    yield path_string(path), json
    node = inner_node(json)
    for key, child in node.children if node is not None else ():
        yield from entries(child, (*path, key))


def indices(json: Json) -> Iterator[int]:
    """Yield the indices of the tensors in a structure."""
    if isinstance(json, dict) and type(json.get("$tensor")) is int:
        yield json["$tensor"]
        return
    node = decode_node(json)
    for _, child in node.children if node is not None else ():
        yield from indices(child)


def renamed(
    json: Json, options: PathOptions
) -> tuple[dict[str, Json], list[str], Mapping[str, int]]:
    """Return the structure by new path, a sentence about each problem, and uses of saved paths."""
    found = list(entries(json))
    saved, counts = dict(found), Counter(name for name, _ in found)
    problems: list[str] = []
    left, result, moved = dict(saved), dict[str, Json](), dict[str, str]()
    # Rename all at once, so that two names can be swapped.
    for old, new in options.rename.items():
        pattern = re.compile(re.escape(old).replace(r"\*", "(.*)") + r"(\..*)?", re.DOTALL)
        hits = {name: match for name in left if (match := pattern.fullmatch(name))}
        if not hits:
            problems.append(f"rename: {old!r} is not in the checkpoint{nearest(old, saved)}")
        names = {name: _substituted(new, hit) for name, hit in hits.items()}
        values = {names[name]: left.pop(name) for name in hits}
        if len(values) < len(hits):
            problems.append(f"rename: {old!r} gives several leaves the same name")
        problems += [ambiguous(name, counts) for name in hits if counts[name] > 1]
        problems += [_occupied(name) for name in values if name in result]
        result |= values
        moved |= names
    problems += [_occupied(name) for name in result if name in left]
    return _rekeyed(left | result, moved), problems, counts


def _rekeyed(saved: dict[str, Json], moved: Mapping[str, str]) -> dict[str, Json]:
    """Apply the new names inside the states of torch's classes, which are loaded as one leaf."""
    origins = {new: old for old, new in moved.items()}
    return {
        name: _with_keys(json, origins.get(name, name), name, moved)
        if moved and is_torch_state(json)
        else json
        for name, json in saved.items()
    }


def _with_keys(json: Json, old: str, new: str, moved: Mapping[str, str]) -> Json:
    node = inner_node(json)
    if node is None or node.kind != "dict":
        return json
    children: list[tuple[Key, Json]] = []
    for key, child in node.children:
        plain = f"{new}.{key}"
        name = moved.get(f"{old}.{key}", plain)
        # An entry renamed out of this node keeps its key here, because the state loads as a whole.
        inside = name != plain and name.startswith(f"{new}.")
        own = name[len(new) + 1 :] if inside else key
        children.append((own, _with_keys(child, f"{old}.{key}", f"{new}.{own}", moved)))
    return encode_node(Node("dict", children))


def ambiguous(name: str, counts: Mapping[str, int]) -> str:
    """Describe a path that several leaves share."""
    return f"{name}: {counts[name]} places in the checkpoint have this path"


def _occupied(name: str) -> str:
    return f"{name}: exists already, so nothing can be renamed to it"


def _substituted(new: str, match: re.Match[str]) -> str:
    *texts, rest = match.groups()
    for text in texts:
        new = new.replace("*", text, 1)
    return new + (rest or "")
