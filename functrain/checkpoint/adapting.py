"""Loading what does not fit as it is: some leaves only, under other names, of other dtypes.

Nothing of this happens unless it is asked for. The leaves of a checkpoint then meet those of
``like`` by their dotted paths, whatever classes the nodes in between have.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn import Parameter

from functrain import tree
from functrain.checkpoint.format.dtypes import BY_NAME, dtype_name
from functrain.checkpoint.format.matching import Declared, is_anything, mismatches
from functrain.checkpoint.format.scalars import Json
from functrain.checkpoint.format.structure import COMPOSITES, Node, decode_node, encode_node
from functrain.names import nearest
from functrain.tree import Path, Tree, path_string

_CLASSES = ("attrs", "namedtuple")
_DROPPED = object()
_MOST_COMPARED = 300


@attrs.frozen
class Adaption:
    """What may differ between a checkpoint and ``like``.

    Attributes:
        only: globs over paths, of leaves or of all below a node; other leaves are not loaded.
        rename: new path by saved path; a path also stands for all below it, and ``*`` for any text.
        cast: convert to the dtype in ``like`` where torch can without dropping a kind of number.
        partial: leave out what only one side has.
    """

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
    ) -> Adaption:
        """From the arguments of :func:`functrain.checkpoint.load`."""
        globs = (only,) if isinstance(only, str) else None if only is None else tuple(only)
        return cls(globs, dict(rename or {}), cast, partial)

    def wants(self, path: str) -> bool:
        """Whether a leaf is to be loaded."""
        return self.only is None or any(
            fnmatchcase(path, glob) or fnmatchcase(path, f"{glob}.*") for glob in self.only
        )


@attrs.frozen(eq=False)
class Slot:
    """A leaf of ``like`` that will be filled from the checkpoint."""

    json: Json
    like: Any


def plain(json: Json) -> Json:
    """A structure in which classes have become dicts of their fields.

    Example:
        >>> plain({"$attrs": "somewhere.State", "fields": {"step": 1}})
        {'step': 1}
    """
    node = _inner(json)
    if node is None:
        return json
    kind = "dict" if node.kind in _CLASSES else node.kind
    return encode_node(Node(kind, [(key, plain(child)) for key, child in node.children]))


def pruned(json: Json, wants: Callable[[str], bool], path: Path = ()) -> Json:
    """A structure of the leaves that are wanted; a node that lost some becomes a dict.

    Example:
        >>> pruned({"a": {"$tuple": [1, 2]}, "b": 3}, lambda path: path == "a.1")
        {'a': {'$dict': [[1, 2]]}}
    """
    left = _pruned(json, wants, path)
    return {} if left is _DROPPED else left


def placed(
    json: Json, leaves: Sequence[Declared], like: Tree, adaption: Adaption
) -> tuple[dict[Path, Slot], list[str]]:
    """Find the places in ``like`` for the leaves of a checkpoint.

    Args:
        json: the saved structure.
        leaves: dtype and shape of its tensors.
        like: the tree expected.
        adaption: what may differ.

    Returns:
        (what is to be filled by its path in ``like``, problems in words).
    """
    entries = list(_entries(json))
    counts = Counter(name for name, _ in entries)
    saved, problems = _renamed(dict(entries), adaption.rename, counts)
    used: set[str] = set()
    slots: dict[Path, Slot] = {}
    for path, leaf in tree.items(like):
        name, anything = path_string(path), is_anything(leaf)
        if not adaption.wants(name) and not anything:
            continue
        if name not in saved:
            if not adaption.partial:
                hint = nearest(name, saved) if len(saved) < _MOST_COMPARED else ""
                problems.append(f"{name}: missing in the checkpoint{hint}")
            continue
        found = _pruned(saved[name], adaption.wants, path) if anything else saved[name]
        if found is _DROPPED:
            continue
        used.add(name)
        if counts[name] > 1:
            problems.append(_ambiguous(name, counts))
        problems.extend(_problems(path, found, leaves, leaf, adaption.cast))
        slots[path] = Slot(found, leaf)
    if not used:
        problems.append("nothing in the checkpoint has the path of anything that is expected")
    elif not adaption.partial:
        extra = (
            name for name, entry in saved.items() if _inner(entry) is None and name not in used
        )
        below = tuple(f"{name}." for name in used)
        problems += [
            f"{name}: unexpected, only in the checkpoint"
            for name in extra
            if adaption.wants(name) and not name.startswith(below)
        ]
    return slots, problems


def names(json: Json, adaption: Adaption) -> Collection[str]:
    """The dotted paths of a structure, as `like` calls them."""
    entries = list(_entries(json))
    return _renamed(dict(entries), adaption.rename, Counter(name for name, _ in entries))[0]


def indices(json: Json) -> Iterator[int]:
    """The tensors that a part of a structure needs."""
    if isinstance(json, dict) and type(json.get("$tensor")) is int:
        yield json["$tensor"]
        return
    node = decode_node(json)
    for _, child in node.children if node is not None else ():
        yield from indices(child)


def _pruned(json: Json, wants: Callable[[str], bool], path: Path) -> Any:
    node = _inner(json)
    if node is None or not node.children:
        return json if wants(path_string(path)) else _DROPPED
    below = [(key, _pruned(child, wants, (*path, key))) for key, child in node.children]
    left = [(key, child) for key, child in below if child is not _DROPPED]
    if len(left) == len(below):
        return json
    return encode_node(Node("dict", left)) if left else _DROPPED


def _entries(json: Json, path: Path = ()) -> Iterator[tuple[str, Json]]:
    """Every node and leaf of a structure by its dotted path."""
    yield path_string(path), json
    node = _inner(json)
    for key, child in node.children if node is not None else ():
        yield from _entries(child, (*path, key))


def _renamed(
    saved: dict[str, Json], rename: Mapping[str, str], counts: Mapping[str, int]
) -> tuple[dict[str, Json], list[str]]:
    problems: list[str] = []
    left, result = dict(saved), dict[str, Json]()
    # All at once, so that two names can be exchanged.
    for old, new in rename.items():
        pattern = re.compile(re.escape(old).replace(r"\*", "(.*)") + r"(\..*)?", re.DOTALL)
        hits = {name: match for name in left if (match := pattern.fullmatch(name))}
        if not hits:
            problems.append(f"rename: {old!r} is not in the checkpoint{nearest(old, saved)}")
        values = {_substituted(new, hit): left.pop(name) for name, hit in hits.items()}
        if len(values) < len(hits):
            problems.append(f"rename: {old!r} gives several leaves the same name")
        problems += [_ambiguous(name, counts) for name in hits if counts[name] > 1]
        problems += [_occupied(name) for name in values if name in result]
        result |= values
    problems += [_occupied(name) for name in result if name in left]
    return left | result, problems


def _ambiguous(name: str, counts: Mapping[str, int]) -> str:
    return f"{name}: {counts[name]} places in the checkpoint have this path"


def _occupied(name: str) -> str:
    return f"{name}: there already, so nothing can be renamed to it"


def _substituted(new: str, match: re.Match[str]) -> str:
    *texts, rest = match.groups()
    for text in texts:
        new = new.replace("*", text, 1)
    return new + (rest or "")


def _problems(
    path: Path, json: Json, leaves: Sequence[Declared], like: Any, cast: bool
) -> Iterator[str]:
    both_dense = _is_dense(json) and type(like) in (Tensor, Parameter)
    if not (cast and both_dense and like.layout == torch.strided):
        yield from mismatches(json, leaves, like, path)
        return
    saved, name = leaves[json["$tensor"]], path_string(path)
    if saved.shape != tuple(like.shape):
        yield f"{name}: expected shape {list(like.shape)}, the checkpoint has {list(saved.shape)}"
    elif not torch.can_cast(BY_NAME[saved.dtype], like.dtype):
        yield f"{name}: {saved.dtype} cannot be cast to {dtype_name(like.dtype)}"


def _is_dense(json: Json) -> bool:
    return type(json) is dict and "$tensor" in json


def _inner(json: Json) -> Node | None:
    """The node that JSON stands for, unless that is a leaf of several tensors."""
    node = decode_node(json)
    return None if node is None or node.kind in COMPOSITES else node
