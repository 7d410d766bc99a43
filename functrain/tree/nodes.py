"""Trees of leaves: nodes, walking and copying them, and the names of places in them.

Nodes are dicts, lists, tuples (named ones too) and instances of attrs classes. Everything else,
``None`` included, is a leaf. A place is a *path*: the tuple of keys that leads to it.
"""

from __future__ import annotations

import builtins
import copy as shallow
from collections.abc import Callable, Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import attrs
import torch
from torch import Tensor

Tree = Any
"""A node with children, or a leaf."""
Leaf = Any
"""A tensor, a number, or whatever else is no node."""
Key = str | int
Path = tuple[Key, ...]
"""The keys and indices from the root of a tree to a node."""
T = TypeVar("T")
_TENSOR = frozenset({Tensor})


def path_string(path: Path) -> str:
    """Write a path as people read it, keys joined by dots.

    Args:
        path: keys from the root to a leaf.

    Returns:
        The dotted name; ``"(root)"`` for the empty path.

    Example:
        >>> path_string(("params", "encoder.0.weight"))
        'params.encoder.0.weight'
    """
    return ".".join(str(key) for key in path) if path else "(root)"


def matches(
    pattern: str | Sequence[str] | Callable[[str, Tensor], bool],
    path: str,
    tensor: Tensor,
    others: Collection[str] = (),
) -> bool:
    """Return whether a parameter is meant by a pattern.

    A pattern is a glob over paths (``"*.bias"``), several of them, or a predicate. Globs match the
    other names of a tied parameter, too. A predicate is asked about the path alone: one that
    excludes a name would include the parameter under another.

    Example:
        >>> import torch
        >>> matches(["head.*", "*.bias"], "encoder.0.bias", torch.zeros(3))
        True
        >>> matches(lambda path, tensor: tensor.ndim > 1, "encoder.0.bias", torch.zeros(3))
        False
    """
    if callable(pattern):
        return bool(pattern(path, tensor))
    globs = [pattern] if isinstance(pattern, str) else pattern
    return any(fnmatchcase(name, glob) for name in (path, *others) for glob in globs)


def is_node(tree: Tree) -> bool:
    """Return whether ``tree`` has children (possibly none of them) rather than being a leaf."""
    return isinstance(tree, (dict, list, tuple)) or (
        attrs.has(type(tree)) and not isinstance(tree, type)
    )


def children(node: Tree) -> list[tuple[Key, Tree]]:
    """Return the keyed children of one node, in order.

    Args:
        node: a dict, list, tuple or attrs instance.

    Returns:
        Pairs of key and child; fields of an attrs class go by their names.

    Example:
        >>> children({"w": 1, "b": [2]})
        [('w', 1), ('b', [2])]
    """
    if isinstance(node, dict):
        return list(node.items())
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return list(zip(node._fields, node, strict=True))
    if isinstance(node, (list, tuple)):
        return list(enumerate(node))
    return [(field.name, getattr(node, field.name)) for field in attrs.fields(type(node))]


def rebuild(node: Tree, values: list[Tree]) -> Tree:
    """Return a node like ``node`` with other children, in the order of :func:`children`."""
    if isinstance(node, dict):
        return dict(zip(node, values, strict=True))
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return type(node)(*values)
    if isinstance(node, (list, tuple)):
        return type(node)(values)
    names = (field.alias for field in attrs.fields(type(node)))
    return type(node)(**dict(zip(names, values, strict=True)))


def items(tree: Tree, path: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """Walk the leaves of a tree in order.

    Args:
        tree: any tree.
        path: the place of ``tree`` itself, a prefix of every path.

    Returns:
        An iterator of (path, leaf).

    Example:
        >>> list(items({"w": 1.0, "slots": [2.0, None]}))
        [(('w',), 1.0), (('slots', 0), 2.0), (('slots', 1), None)]
    """
    if not is_node(tree):
        yield path, tree
        return
    for key, child in children(tree):
        yield from items(child, (*path, key))


def flatten(tree: Tree) -> dict[Path, Leaf]:
    """Return all leaves of a tree by path.

    Example:
        >>> flatten({"a": {"b": 1}})
        {('a', 'b'): 1}
    """
    return dict(items(tree))


def map(function: Callable[[Leaf], Leaf], tree: Tree) -> Tree:
    """Return a tree of the same structure with ``function`` applied to every leaf.

    Example:
        >>> map(lambda leaf: leaf * 2, {"a": (1, 2)})
        {'a': (2, 4)}
    """
    return map_with_path(lambda _, leaf: function(leaf), tree)


def map_with_path(function: Callable[[Path, Leaf], Leaf], tree: Tree, path: Path = ()) -> Tree:
    """Map like :func:`map`, with a function of (path, leaf)."""
    if not is_node(tree):
        return function(path, tree)
    return rebuild(
        tree, [map_with_path(function, child, (*path, key)) for key, child in children(tree)]
    )


def copy(value: T) -> T:
    """Return a copy of a tree that shares no memory with it.

    Args:
        value: any tree, such as a ``TrainState`` that is about to be donated.

    Returns:
        A tree of the same structure with cloned tensors.

    Example:
        >>> ours = {"w": torch.zeros(2)}
        >>> theirs = copy(ours)
        >>> _ = ours["w"].add_(1)
        >>> theirs["w"]
        tensor([0., 0.])
    """
    copied: T = _copied(value)
    return copied


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if value is None:
        return None
    if isinstance(value, dict):
        if value and _TENSOR.issuperset(builtins.map(type, value.values())):
            return dict(zip(value, clones(list(value.values())), strict=True))
        return {key: _copied(child) for key, child in value.items()}
    if type(value).__module__ == "numpy":  # an array or an immutable scalar
        return shallow.copy(value)
    if is_node(value):
        return rebuild(value, [_copied(child) for _, child in children(value)])
    return value


def clones(tensors: list[Tensor]) -> list[Tensor]:
    """Clone many tensors, in one call if torch supports it (2.12 and later)."""
    if hasattr(torch, "_foreach_clone"):
        return list(torch._foreach_clone(tensors))
    return [tensor.clone() for tensor in tensors]
