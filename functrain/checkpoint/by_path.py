"""Match the leaves of a checkpoint to those of ``like`` by their dotted paths.

Used only with the options ``only``, ``rename``, ``cast`` and ``partial``. The classes of the nodes
on the way to a leaf do not matter then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn import Parameter

from functrain import tree
from functrain.checkpoint.format.changed_buffers import Began, changed_by_use
from functrain.checkpoint.format.dtypes import BY_NAME, dtype_name
from functrain.checkpoint.format.mismatches import Anything, is_anything, mismatches
from functrain.checkpoint.format.records import Declared
from functrain.checkpoint.format.scalars import Json
from functrain.checkpoint.format.structure import Node, decode_node, encode_node, inner_node
from functrain.checkpoint.format.torch_states import is_of_layout, is_torch_state
from functrain.checkpoint.rename import ambiguous, rename_leaves
from functrain.core.state import TrainState
from functrain.errors.nearest import nearest
from functrain.tree import Path, Tree, path_string

_CLASSES = ("attrs", "namedtuple")
_DROPPED = object()
_ANYTHING = Anything()
_MOST_COMPARED = 300


@attrs.frozen
class PathOptions:
    """The allowed differences between a checkpoint and ``like``.

    Attributes:
        only: globs over paths of leaves, or of nodes with all their leaves; load no others.
        rename: new path by saved path; a path includes everything below it, ``*`` is any text.
        cast: convert to the dtype in ``like`` where torch considers the cast safe.
        partial: skip leaves that only one side has.
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
    ) -> PathOptions:
        """Convert the arguments of :func:`functrain.checkpoint.load`."""
        globs = (only,) if isinstance(only, str) else None if only is None else tuple(only)
        return cls(globs, dict(rename or {}), cast, partial)

    def wants(self, path: str) -> bool:
        """Return whether to load the leaf at a path."""
        return self.only is None or any(
            fnmatchcase(path, glob) or fnmatchcase(path, f"{glob}.*") for glob in self.only
        )


@attrs.frozen(eq=False)
class PathMatch:
    """The parts of a checkpoint and their places in ``like``.

    Attributes:
        slots: saved structure by path, for leaves of ``like`` and states of torch's classes.
        problems: a sentence about each mismatch.
        left: a sentence about each part that ``partial`` skips because only one side has it.
    """

    slots: dict[Path, Json] = attrs.field(factory=dict)
    problems: list[str] = attrs.field(factory=list)
    left: list[str] = attrs.field(factory=list)


def without_classes(json: Json) -> Json:
    """Replace the classes in a structure by dicts of their fields.

    Example:
        >>> without_classes({"$attrs": "somewhere.State", "fields": {"step": 1}})
        {'step': 1}
    """
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
    left = _select(json, wants, path)
    return {} if left is _DROPPED else left


def match_by_path(
    json: Json, leaves: Sequence[Declared], like: Tree, options: PathOptions, began: Began
) -> PathMatch:
    """Find the places of the leaves of a checkpoint in ``like``.

    Args:
        json: the saved structure.
        leaves: dtype and shape of its tensors.
        like: the tree expected.
        options: what may differ.
        began: what the run recorded about its buffers.
    """
    entries = list(_entries(json))
    counts = Counter(name for name, _ in entries)
    saved, problems = rename_leaves(dict(entries), options.rename, counts)
    result = PathMatch(problems=problems)
    used: set[str] = set()
    for path, leaf in _places(like, saved, leaves, options, began):
        name, anything = path_string(path), is_anything(leaf)
        if not options.wants(name) and not (anything or is_torch_state(leaf)):
            continue
        if name not in saved:
            _report_missing(path, saved, options, result)
            continue
        found = _select(saved[name], options.wants, path) if anything else saved[name]
        if found is _DROPPED:
            continue
        used.add(name)
        if counts[name] > 1:
            problems.append(ambiguous(name, counts))
        problems.extend(_problems(path, found, leaves, leaf, options.cast))
        result.slots[path] = found
    if not used:
        problems.append("nothing in the checkpoint has an expected path")
    _report_extra(saved, used, options, result)
    return result


def _places(
    like: Tree,
    saved: Mapping[str, Json],
    leaves: Sequence[Declared],
    options: PathOptions,
    began: Began,
    path: Path = (),
) -> Iterator[tuple[Path, Any]]:
    """Yield every leaf with its path, and a state of a torch class as one leaf.

    The entries of such a state are not known in advance. ``Anything`` stands for the buffers whose
    shape or dtype the forward pass has changed.
    """
    if is_torch_state(like) and is_of_layout(saved.get(path_string(path)), like):
        whole = all(options.wants(path_string((*path, key))) for key in like)
    else:
        whole = not tree.is_node(like)
    if whole:
        yield path, like
        return
    for key, child in tree.children(like):
        below = (*path, key)
        if key == "buffers" and isinstance(like, TrainState) and isinstance(child, Mapping):
            theirs = {name: saved.get(path_string((*below, name))) for name in child}
            changed = changed_by_use(child, theirs, leaves, began)
            child = {**child, **dict.fromkeys(changed, _ANYTHING)}
        yield from _places(child, saved, leaves, options, began, below)


def _report_missing(
    path: Path, saved: Mapping[str, Json], options: PathOptions, result: PathMatch
) -> None:
    name = path_string(path)
    if not options.partial:
        hint = nearest(name, saved) if len(saved) < _MOST_COMPARED else ""
        result.problems.append(f"{name}: missing in the checkpoint{hint}")
        return
    names = (path_string(path[:length]) for length in range(1, len(path) + 1))
    highest = next(name for name in names if name not in saved)
    line = f"{highest}: not in the checkpoint, left as it is in like"
    if line not in result.left[-1:]:
        result.left.append(line)


def _report_extra(
    saved: Mapping[str, Json], used: set[str], options: PathOptions, result: PathMatch
) -> None:
    below = tuple(f"{name}." for name in used)
    extra = [
        name
        for name, entry in saved.items()
        if inner_node(entry) is None and name not in used
        if options.wants(name) and not name.startswith(below)
    ]
    if not options.partial:
        lines = (f"{name}: unexpected, only in the checkpoint" for name in extra)
        result.problems.extend(lines if used else ())
        return
    # Report a node of which every leaf is skipped in one line.
    listed = tuple[str, ...]()
    nodes = {name[:end] for name in used for end in _dots(name)}
    for name in extra:
        if not name.startswith(listed):
            prefixes = (name[:end] for end in _dots(name))
            highest = next((one for one in prefixes if one in saved and one not in nodes), name)
            listed = (*listed, f"{highest}.")
            result.left.append(f"{highest}: only in the checkpoint, not loaded")


def _dots(name: str) -> list[int]:
    return [index for index, letter in enumerate(name) if letter == "."]


def names(json: Json, options: PathOptions) -> Collection[str]:
    """Return the dotted paths of a structure after renaming."""
    entries = list(_entries(json))
    return rename_leaves(dict(entries), options.rename, Counter(name for name, _ in entries))[0]


def indices(json: Json) -> Iterator[int]:
    """Yield the indices of the tensors in a structure."""
    if isinstance(json, dict) and type(json.get("$tensor")) is int:
        yield json["$tensor"]
        return
    node = decode_node(json)
    for _, child in node.children if node is not None else ():
        yield from indices(child)


def _select(json: Json, wants: Callable[[str], bool], path: Path) -> Any:
    node = inner_node(json)
    if node is None or not node.children:
        return json if wants(path_string(path)) else _DROPPED
    below = [(key, _select(child, wants, (*path, key))) for key, child in node.children]
    left = [(key, child) for key, child in below if child is not _DROPPED]
    if len(left) == len(below):
        return json
    return encode_node(Node("dict", left)) if left else _DROPPED


def _entries(json: Json, path: Path = ()) -> Iterator[tuple[str, Json]]:
    """Yield every node and leaf of a structure with its dotted path."""
    yield path_string(path), json
    node = inner_node(json)
    for key, child in node.children if node is not None else ():
        yield from _entries(child, (*path, key))


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
