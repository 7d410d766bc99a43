"""Compare a saved structure with the expected one, before any tensor is read."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from functrain.checkpoint.format.changed_in_use import (
    Began,
    changed_by_use,
    is_of_layout,
    is_torch_state,
    torch_state_mismatches,
)
from functrain.checkpoint.format.composites import composite_kind, outline
from functrain.checkpoint.format.decoding import Anything, expected_below, is_anything
from functrain.checkpoint.format.dtypes import dtype_name
from functrain.checkpoint.format.records import Leaf
from functrain.checkpoint.format.scalars import Json, is_scalar
from functrain.checkpoint.format.structure import COMPOSITES, Node, decode_node, node_of
from functrain.core.state import TrainState
from functrain.tree import Path, is_node, path_string
from functrain.tree.nodes import Key

_DENSE = (Tensor, torch.nn.Parameter)
_MAPPINGS = ("dict", "OrderedDict")
_MOST_COMPARED = 300


def mismatches(
    json: Json,
    leaves: Sequence[Leaf],
    like: Any,
    path: Path = (),
    began: Began = MappingProxyType({}),
) -> Iterator[str]:
    r"""Yield one line, which begins with the path, for each difference from the expected tree.

    Scalars of any type and value match. Sparse tensors and arrays must agree in dtype and shape,
    generators in the type of device. ``began`` are the initial forms of the buffers that the run
    recorded.

    Example:
        >>> print(*mismatches({"bais": 0}, [], {"bias": 0}), sep="\n")
        bias: missing in the checkpoint (it has 'bais')
        bais: unexpected, only in the checkpoint
    """
    found: list[str] = []
    _compare(json, _Saved(leaves, began), like, path, found)
    return iter(found)


def counterparts(json: Json, like: Any) -> Iterator[tuple[int, Tensor]]:
    """Yield the index of each saved tensor that has a counterpart in ``like``, with that one."""
    if type(json) is dict and "$tensor" in json:
        if isinstance(like, Tensor):
            yield json["$tensor"], like
        return
    node = decode_node(json)
    if node is None:
        return
    if node.kind.startswith("sparse"):
        for _, child in node.children:
            yield from counterparts(child, like)
        return
    below = expected_below(like)
    for key, child in node.children:
        if key in below:
            yield from counterparts(child, below[key])


class _Saved(NamedTuple):
    leaves: Sequence[Leaf]
    began: Began


def _compare(json: Json, saved: _Saved, like: Any, path: Path, found: list[str]) -> None:
    if type(like) in _DENSE and type(json) is dict and "$tensor" in json:
        leaf = saved.leaves[json["$tensor"]]
        # Nearly all leaves are plain tensors that fit, so check those first.
        fits = leaf.shape == like.shape and leaf.dtype == dtype_name(like.dtype)
        if fits and like.layout == torch.strided:
            return
    if is_anything(like):
        return
    if is_torch_state(like) and is_of_layout(json, like):
        torch_state_mismatches(json, saved.leaves, like, path, found)
        return
    node = decode_node(json)
    got, expected = _kind(json, node), _kind_of(like, path)
    if got != expected:
        found.append(f"{path_string(path)}: expected {expected}, the checkpoint has {got}")
    elif isinstance(like, Tensor) and node is None:
        leaf = saved.leaves[json["$tensor"]]
        facts = {"shape": [*like.shape], "dtype": dtype_name(like.dtype)}
        _compare_outlines({"shape": [*leaf.shape], "dtype": leaf.dtype}, facts, path, found)
    elif node is not None:
        if node.kind in COMPOSITES:
            _compare_outlines(node.scalars, outline(node.kind, like, path), path, found)
        if node.kind not in COMPOSITES or node.kind == "subclass":
            _compare_children(node, saved, _expected(node, saved, like), path, found)


def _expected(node: Node, saved: _Saved, like: Any) -> Mapping[Any, Any]:
    """Return the expected children; ``Anything`` for buffers that a run has changed."""
    below = expected_below(like)
    if not isinstance(like, TrainState) or not isinstance(like.buffers, Mapping):
        return below
    theirs = decode_node(dict(node.children).get("buffers"))
    if theirs is None:
        return below
    structure = {str(name): child for name, child in theirs.children}
    changed = changed_by_use(like.buffers, structure, saved.leaves, saved.began)
    return {**below, "buffers": {**like.buffers, **dict.fromkeys(changed, Anything)}}


def _compare_outlines(
    saved: Mapping[str, Any], like: Mapping[str, Any], path: Path, found: list[str]
) -> None:
    for name, prefix in (("shape", "shape "), ("dtype", ""), ("device", "")):
        got, expected = saved.get(name), like.get(name)
        if name == "device":
            # Any device of the same type continues the stream of a generator.
            got, expected = str(got).partition(":")[0], str(expected).partition(":")[0]
        if got != expected:
            here = path_string(path)
            found.append(f"{here}: expected {prefix}{expected}, the checkpoint has {got}")


def _compare_children(
    node: Node,
    saved: _Saved,
    ours: Mapping[Any, Any],
    path: Path,
    found: list[str],
) -> None:
    theirs = dict(node.children)
    unexpected = [key for key in theirs if key not in ours]
    for key, child in ours.items():
        if key in theirs:
            _compare(theirs[key], saved, child, (*path, key), found)
        else:
            near = _nearest(key, unexpected)
            found.append(f"{path_string((*path, key))}: missing in the checkpoint{near}")
    for key in unexpected:
        found.append(f"{path_string((*path, key))}: unexpected, only in the checkpoint")


def _nearest(key: Key, candidates: list[Key]) -> str:
    if len(candidates) > _MOST_COMPARED:
        return ""
    near = difflib.get_close_matches(str(key), [str(other) for other in candidates], n=1)
    return f" (it has {near[0]!r})" if near else ""


def _kind(json: Json, node: Node | None) -> str:
    if node is not None:
        return _described(node)
    return "a tensor" if type(json) is dict and "$tensor" in json else "a scalar"


def _kind_of(like: Any, path: Path) -> str:
    kind = composite_kind(like)
    if kind is not None:
        return _described(Node(kind, [], None, outline(kind, like, path)))
    if isinstance(like, Tensor):
        return "a tensor"
    return "a scalar" if is_scalar(like) or not is_node(like) else _described(node_of(like, path))


def _described(node: Node) -> str:
    if node.kind in COMPOSITES:
        name = node.scalars.get("class")
        return COMPOSITES[node.kind] if name is None else f"a {name}"
    kind = "dict" if node.kind in _MAPPINGS else node.kind
    return f"a {kind}" if node.name is None else f"a {node.name}"
