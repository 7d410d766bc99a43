"""Rename the leaves of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping

from functrain.checkpoint.format.scalars import Json
from functrain.checkpoint.format.structure import Node, encode_node, inner_node
from functrain.checkpoint.format.torch_states import is_torch_state
from functrain.errors.nearest import nearest
from functrain.tree.nodes import Key


def rename_leaves(
    saved: dict[str, Json], rename: Mapping[str, str], counts: Mapping[str, int]
) -> tuple[dict[str, Json], list[str]]:
    """Rename nodes and leaves; return them by new path, and a sentence about each problem."""
    problems: list[str] = []
    left, result, moved = dict(saved), dict[str, Json](), dict[str, str]()
    # Rename all at once, so that two names can be swapped.
    for old, new in rename.items():
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
    return _rekeyed(left | result, moved), problems


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
