"""Match the leaves of a checkpoint to those of ``like`` by their dotted paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn import Parameter

from functrain import tree
from functrain.checkpoint.format.changed_in_use import (
    Began,
    changed_by_use,
    is_of_layout,
    is_torch_state,
    match_per_parameter,
)
from functrain.checkpoint.format.decoding import Anything, is_anything
from functrain.checkpoint.format.dtypes import BY_NAME, dtype_name
from functrain.checkpoint.format.mismatches import mismatches
from functrain.checkpoint.format.records import Leaf
from functrain.checkpoint.format.scalars import Json
from functrain.checkpoint.format.structure import inner_node
from functrain.checkpoint.path_options import DROPPED, PathOptions, ambiguous, renamed, selected
from functrain.core.state import TrainState
from functrain.errors.nearest import nearest
from functrain.tree import Path, Tree, path_string
from functrain.tree.placed import is_placed

_ANYTHING = Anything()
_MOST_COMPARED = 300


@attrs.frozen(eq=False)
class PathMatch:
    """The parts of a checkpoint and their places in ``like``.

    Attributes:
        like: the tree to fill, with the per-parameter entries that the checkpoint has.
        slots: saved structure by path, for leaves of ``like`` and states of torch's classes.
        problems: a sentence about each mismatch.
        left: a sentence about each part that ``partial`` skips because only one side has it.
    """

    like: Tree
    problems: list[str]
    slots: dict[Path, Json] = attrs.field(factory=dict)
    left: list[str] = attrs.field(factory=list)


def match_by_path(
    json: Json, leaves: Sequence[Leaf], like: Tree, options: PathOptions, began: Began
) -> PathMatch:
    """Find the places of the leaves of a checkpoint in ``like``."""
    saved, problems, counts = renamed(json, options)
    result = PathMatch(match_per_parameter(like, saved, options.wants, options.partial), problems)
    used: set[str] = set()
    for path, leaf in _places(result.like, saved, leaves, options, began):
        name, anything = path_string(path), is_anything(leaf)
        if not options.wants(name) and not (anything or is_torch_state(leaf)):
            continue
        if name not in saved:
            _report_missing(path, saved, options, result)
            continue
        found = selected(saved[name], options.wants, path) if anything else saved[name]
        if found is DROPPED:
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
    leaves: Sequence[Leaf],
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


def _problems(
    path: Path, json: Json, leaves: Sequence[Leaf], like: Any, cast: bool
) -> Iterator[str]:
    both_dense = _is_dense(json) and (type(like) in (Tensor, Parameter) or is_placed(like))
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
