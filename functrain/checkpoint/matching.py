"""Whether a saved structure is the one expected: told by path, all at once, before any payload."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from functrain.checkpoint.dtypes import dtype_name
from functrain.checkpoint.scalars import Json
from functrain.checkpoint.structure import Node, decode_node, node_of
from functrain.tree import Path, children, is_node, path_string
from functrain.tree.nodes import Key

_MAPPINGS = ("dict", "OrderedDict")
_MOST_COMPARED = 300


class Anything:
    """In ``like``, the class or an instance stands for whatever was saved at its place.

    Example:
        >>> list(mismatches({"step": 1, "moments": [2.0]}, [], {"step": 0, "moments": Anything()}))
        []
    """


class Declared(Protocol):
    """What a manifest says of a tensor."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


def is_anything(like: Any) -> bool:
    """Whether ``like`` stands for whatever was saved."""
    return like is Anything or isinstance(like, Anything)


def child_of(like: Any, key: Key) -> Any:
    """What is expected at a key of ``like``; ``Anything`` where nothing is."""
    return dict(children(like)).get(key, Anything) if is_node(like) else Anything


def mismatches(json: Json, leaves: Sequence[Declared], like: Any, path: Path = ()) -> Iterator[str]:
    r"""Say where a saved structure differs from the expected one.

    Scalars may be of any type and value: they are what was saved, whatever ``like`` has.

    Args:
        json: the saved structure.
        leaves: dtype and shape of its tensors.
        like: the tree expected; only structure, shapes and dtypes count.
        path: where both stand.

    Yields:
        One line a difference, which begins with the path.

    Example:
        >>> print(*mismatches({"bais": 0}, [], {"bias": 0}), sep="\n")
        bias: missing in the checkpoint (it has 'bais')
        bais: unexpected, only in the checkpoint
    """
    if is_anything(like):
        return
    saved = decode_node(json)
    if isinstance(like, Tensor) and isinstance(json, dict) and "$tensor" in json:
        yield from _tensor_mismatches(leaves[json["$tensor"]], like, path)
    elif saved is not None and is_node(like):
        yield from _node_mismatches(saved, leaves, like, path)
    elif _kind(json) != _kind_of(like):
        expected, came = _kind_of(like), _kind(json)
        yield f"{path_string(path)}: expected {expected}, the checkpoint has {came}"


def devices(json: Json, like: Any) -> Iterator[tuple[int, torch.device]]:
    """The device of the tensor in ``like`` for every saved tensor that has one there."""
    if isinstance(like, Tensor):
        if isinstance(json, dict) and "$tensor" in json and not like.is_meta:
            yield json["$tensor"], like.device
        return
    node = decode_node(json)
    if node is not None and is_node(like):
        expected = dict(children(like))
        for key, child in node.children:
            yield from devices(child, expected.get(key))


def _tensor_mismatches(saved: Declared, like: Tensor, path: Path) -> Iterator[str]:
    if saved.shape != tuple(like.shape):
        expected, came = list(like.shape), list(saved.shape)
        yield f"{path_string(path)}: expected shape {expected}, the checkpoint has {came}"
    if saved.dtype != dtype_name(like.dtype):
        expected_dtype = dtype_name(like.dtype)
        yield f"{path_string(path)}: expected {expected_dtype}, the checkpoint has {saved.dtype}"


def _node_mismatches(
    saved: Node, leaves: Sequence[Declared], like: Any, path: Path
) -> Iterator[str]:
    expected = node_of(like, path)
    if _described(saved) != _described(expected):
        here = path_string(path)
        yield f"{here}: expected {_described(expected)}, the checkpoint has {_described(saved)}"
        return
    ours, theirs = dict(expected.children), dict(saved.children)
    unexpected = [key for key in theirs if key not in ours]
    for key, child in ours.items():
        if key in theirs:
            yield from mismatches(theirs[key], leaves, child, (*path, key))
        else:
            near = _nearest(key, unexpected)
            yield f"{path_string((*path, key))}: missing in the checkpoint{near}"
    for key in unexpected:
        yield f"{path_string((*path, key))}: unexpected, only in the checkpoint"


def _nearest(key: Key, candidates: list[Key]) -> str:
    if len(candidates) > _MOST_COMPARED:
        return ""
    near = difflib.get_close_matches(str(key), [str(other) for other in candidates], n=1)
    return f" (it has {near[0]!r})" if near else ""


def _described(node: Node) -> str:
    kind = "dict" if node.kind in _MAPPINGS else node.kind
    return f"a {kind}" if node.name is None else f"a {node.name}"


def _kind(json: Json) -> str:
    if isinstance(json, dict) and "$tensor" in json:
        return "a tensor"
    node = decode_node(json)
    return "a scalar" if node is None else _described(node)


def _kind_of(like: Any) -> str:
    if isinstance(like, Tensor):
        return "a tensor"
    return _described(node_of(like, ())) if is_node(like) else "a scalar"
