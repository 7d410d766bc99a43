"""What a batch may be nested in: the nodes of trees, and other mappings and dataclasses too.

A state is made of plain containers. Batches are not ours: tokenizers give mappings that are no
dicts, and people write dataclasses and dicts with attributes. Each comes back as what it was.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, MutableMapping
from typing import Any

from functrain import tree


def is_container(value: Any) -> bool:
    """Whether a part of a batch has children (possibly none) rather than being a leaf.

    Args:
        value: any part of a batch.

    Example:
        >>> from collections import UserDict
        >>> is_container(UserDict(x=1)), is_container("text")
        (True, False)
    """
    return tree.is_node(value) or isinstance(value, Mapping) or _is_record(value)


def children(container: Any) -> list[tuple[Any, Any]]:
    """The keyed children of a container, in order; those of a dataclass are its fields.

    Args:
        container: for which :func:`is_container` is true.
    """
    if isinstance(container, Mapping):
        return list(container.items())
    if tree.is_node(container):
        return tree.children(container)
    names = [field.name for field in dataclasses.fields(container)]
    return [(name, getattr(container, name)) for name in names if hasattr(container, name)]


def rebuild(container: Any, values: list[Any]) -> Any:
    """A container of the same class with other children.

    Args:
        container: not changed; what it holds besides its children is kept.
        values: in the order of :func:`children`.

    Example:
        >>> from collections import OrderedDict
        >>> rebuild(OrderedDict(x=1), [2]) == OrderedDict(x=2)
        True
    """
    if type(container) is dict:
        return dict(zip(container, values, strict=True))
    if isinstance(container, MutableMapping):
        return _mapping(container, values)
    if isinstance(container, Mapping):
        return type(container)(dict(zip(container, values, strict=True)))  # type: ignore[call-arg]
    if tree.is_node(container):
        return tree.rebuild(container, values)
    fresh = copy.copy(container)
    for (name, _), value in zip(children(container), values, strict=True):
        object.__setattr__(fresh, name, value)  # also where it is frozen
    return fresh


def _mapping(container: MutableMapping[Any, Any], values: list[Any]) -> Any:
    """A copy with other items; attributes that are items under another view follow them."""
    fresh = copy.copy(container)
    following = {id(old): new for old, new in zip(container.values(), values, strict=True)}
    for key, value in zip(container, values, strict=True):
        fresh[key] = value
    attributes = getattr(fresh, "__dict__", {})
    for name, value in attributes.items():
        attributes[name] = following.get(id(value), value)
    return fresh


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
