"""Containers of batches: the nodes of trees, and containers of other packages and of users.

A state is made of plain containers. Batches are not: tokenizers return mappings that are not dicts,
graphs are objects with tensors in their attributes, users write dataclasses and dicts with
attributes. Each is rebuilt as its own class.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import attrs
import torch.utils._pytree as pytree
from torch import Tensor

from functrain.tree import nodes, objects


def is_container(value: Any) -> bool:
    """Return whether a part of a batch has children (possibly none) rather than being a leaf.

    Example:
        >>> from collections import UserDict
        >>> is_container(UserDict(x=1)), is_container("text")
        (True, False)
    """
    return is_structure(value) or objects.holds_tensors(value)


def is_structure(value: Any) -> bool:
    """Return whether the class of a value is a container, independently of its contents."""
    return (
        nodes.is_node(value)
        or isinstance(value, Mapping)
        or _is_record(value)
        or objects.is_registered(value)
    )


def children(container: Any) -> list[tuple[Any, Any]]:
    """Return the keyed children of a container, in order.

    The children of a dataclass or attrs instance are its fields and other attributes. A class known
    to torch's pytree has the children it flattens to, and any other object all leaves in it.
    """
    if type(container) is dict or isinstance(container, (list, tuple)):
        return nodes.children(container)
    if objects.is_registered(container):
        return list(enumerate(_flattened(container)[0]))
    if isinstance(container, Mapping):
        return [*container.items(), *_outside_items(container)]
    if is_structure(container):
        return [(name, getattr(container, name)) for name in _fields(container)]
    return list(objects.contents(container).leaves)


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in any part of a batch."""
    if isinstance(value, Tensor):
        yield value
    elif is_container(value):
        for _, child in children(value):
            yield from tensors(child)


def constants(container: Any) -> Any:
    """Return the pytree context of a container that torch's pytree knows; ``None`` of any other."""
    plain = isinstance(container, (dict, list, tuple))
    return None if plain or not objects.is_registered(container) else _flattened(container)[1]


def rebuild(container: Any, values: list[Any]) -> Any:
    """Return a container of the same class with other children.

    Example:
        >>> from collections import OrderedDict
        >>> rebuild(OrderedDict(x=1), [2]) == OrderedDict(x=2)
        True
    """
    if type(container) is dict:
        return dict(zip(container, values, strict=True))
    if objects.is_registered(container):
        node = pytree.SUPPORTED_NODES[type(container)]
        return node.unflatten_fn(values, _flattened(container)[1])
    if isinstance(container, MutableMapping):
        return _mapping(container, values)
    if isinstance(container, Mapping):
        return type(container)(dict(zip(container, values, strict=False)))  # type: ignore[call-arg]
    if isinstance(container, (list, tuple)):
        return nodes.rebuild(container, values)
    if not is_structure(container):
        return objects.rebuilt(container, objects.contents(container), values)
    fresh = copy.copy(container)
    for name, value in zip(_fields(container), values, strict=True):
        object.__setattr__(fresh, name, value)  # also works for a frozen class
    return fresh


def _mapping(container: MutableMapping[Any, Any], values: list[Any]) -> Any:
    """Return a copy with other items; attributes that are items under another view follow them."""
    fresh = copy.copy(container)
    old = [child for _, child in children(container)]
    following = {id(one): other for one, other in zip(old, values, strict=True)}
    for key, value in zip(container, values, strict=False):  # attributes are last
        fresh[key] = value
    attributes = getattr(fresh, "__dict__", {})
    for name, value in attributes.items():
        attributes[name] = following.get(id(value), value)
    return fresh


def _outside_items(container: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """Return the tensors in the attributes of a mapping that are not among its items."""
    own = getattr(container, "__dict__", {})
    found = [(f".{name}", value) for name, value in own.items() if isinstance(value, Tensor)]
    items = {id(value) for value in container.values()} if found else set()
    return [(name, value) for name, value in found if id(value) not in items]


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _fields(record: Any) -> list[str]:
    """Return the fields that an attrs or dataclass instance has set, then its other attributes."""
    known = attrs.fields if attrs.has(type(record)) else dataclasses.fields
    names = [field.name for field in known(type(record))]
    names += [name for name in getattr(record, "__dict__", ()) if name not in names]
    return [name for name in names if hasattr(record, name)]


def _flattened(container: Any) -> tuple[list[Any], Any]:
    found, context = pytree.SUPPORTED_NODES[type(container)].flatten_fn(container)
    return list(found), context
