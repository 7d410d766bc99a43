"""Containers of batches: the nodes of trees, and containers of other packages and of users.

A state is made of plain containers. Batches are not: tokenizers return mappings that are not dicts,
graphs are objects with tensors in their attributes, users write dataclasses and dicts with
attributes. Each is rebuilt as its own class, by what torch's pytree knows of it or ``copy.copy``.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch.utils._pytree as pytree
from torch import Tensor

from functrain.errors import UnsupportedError
from functrain.tree import nodes
from functrain.tree.objects import attributes, is_array, is_registered


def is_container(value: Any) -> bool:
    """Return whether a part of a batch has children (possibly none) rather than being a leaf.

    An object of any class is a container if there are tensors or arrays in its attributes.

    Example:
        >>> from collections import UserDict
        >>> is_container(UserDict(x=1)), is_container("text")
        (True, False)
    """
    if is_structure(value):
        return True
    return any(_holds_data(child, {id(value)}) for child in attributes(value).values())


def is_structure(value: Any) -> bool:
    """Return whether the class of a value is a container, independently of its contents."""
    is_record = dataclasses.is_dataclass(value) and not isinstance(value, type)
    known = nodes.is_node(value) or isinstance(value, Mapping)
    return known or is_record or is_registered(value)


def children(container: Any) -> list[tuple[Any, Any]]:
    """Return the keyed children of a container, in order.

    A class known to torch's pytree has the children it flattens to. Any other object, a dataclass
    or attrs instance too, has its attributes as children.
    """
    if type(container) is dict or isinstance(container, (list, tuple)):
        return nodes.children(container)
    if is_registered(container):
        return list(enumerate(_flattened(container)[0]))
    if isinstance(container, Mapping):
        return [*container.items(), *_other_tensors(container)]
    return list(attributes(container).items())


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in any part of a batch."""
    if isinstance(value, Tensor):
        yield value
    elif is_container(value):
        for _, child in children(value):
            yield from tensors(child)


def constants(container: Any) -> Any:
    """Return the pytree context of a container that torch's pytree knows; ``None`` of any other."""
    return _flattened(container)[1] if is_registered(container) else None


def rebuild(container: Any, values: list[Any]) -> Any:
    """Return a container of the same class with other children.

    Example:
        >>> from collections import OrderedDict
        >>> rebuild(OrderedDict(x=1), [2]) == OrderedDict(x=2)
        True
    """
    if type(container) is dict:
        return dict(zip(container, values, strict=True))
    if is_registered(container):
        unflatten = pytree.SUPPORTED_NODES[type(container)].unflatten_fn
        return unflatten(values, _flattened(container)[1])
    if isinstance(container, (list, tuple)):
        return nodes.rebuild(container, values)
    if isinstance(container, Mapping):
        return _mapping(container, values)
    fresh = _copy(container)
    for name, value in zip(attributes(container), values, strict=True):
        object.__setattr__(fresh, name, value)  # also works for a frozen class
    return fresh


def _mapping(container: Mapping[Any, Any], values: list[Any]) -> Any:
    """Return a copy with other items; attributes that are items under another view follow them."""
    if not isinstance(container, MutableMapping):
        made: Any = type(container)
        return made(dict(zip(container, values, strict=False)))
    fresh = _copy(container)
    old = [child for _, child in children(container)]
    following = {id(one): other for one, other in zip(old, values, strict=True)}
    for key, value in zip(container, values, strict=False):  # attributes are last
        fresh[key] = value
    own = getattr(fresh, "__dict__", {})
    for name, value in own.items():
        own[name] = following.get(id(value), value)
    return fresh


def _other_tensors(container: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """Return the tensors in the attributes of a mapping that are not among its items."""
    own = getattr(container, "__dict__", {})
    found = [(f".{name}", value) for name, value in own.items() if isinstance(value, Tensor)]
    items = {id(value) for value in container.values()} if found else set()
    return [(name, value) for name, value in found if id(value) not in items]


def _copy(container: Any) -> Any:
    try:
        fresh = copy.copy(container)
        if fresh is container:
            raise TypeError("copy.copy returns the object itself")
    except Exception as error:
        raise not_copied(container, str(error)) from error
    return fresh


def not_copied(value: Any, reason: str) -> UnsupportedError:
    """Return an error that says how to make a class one of the containers."""
    return UnsupportedError(
        "a step hands a copy of its batch to the model, and the "
        f"{type(value).__qualname__} in this batch cannot be copied: {reason}. Register its parts "
        "with torch.utils._pytree.register_pytree_node, or give the batch as a dict of tensors"
    )


def _holds_data(value: Any, seen: set[int]) -> bool:
    """Return whether there are tensors or arrays in a value, apart from what was ``seen``."""
    if isinstance(value, Tensor) or is_array(value):
        return True
    is_new = id(value) not in seen
    seen.add(id(value))
    return is_new and any(_holds_data(child, seen) for _, child in children(value))


def _flattened(container: Any) -> tuple[list[Any], Any]:
    found, context = pytree.SUPPORTED_NODES[type(container)].flatten_fn(container)
    return list(found), context
