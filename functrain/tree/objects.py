"""Tensors in the attributes of objects of foreign classes.

Graphs, records and batches of other packages hold tensors in ``__dict__`` or slots, often through
further objects, with two names for one tensor or a reference back to the owner. Such an
object is one node here: its leaves are all that can be reached from it. A copy has the same
attributes and items at every level, with other leaves; a class's own ``__deepcopy__`` is not used,
because some (PyTorch Geometric's among them) share parts of the original.
"""

from __future__ import annotations

import copy
import copyreg
import functools
import sys
import weakref
from collections.abc import Iterator, Sequence
from types import BuiltinFunctionType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any

import attrs
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from functrain.errors import UnsupportedError

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
# Not searched, because they are not data or have state that a copy must share.
_CLOSED = (
    type,
    FunctionType,
    MethodType,
    BuiltinFunctionType,
    GeneratorType,
    ModuleType,
    functools.partial,
    nn.Module,
    torch.Generator,
)


@attrs.frozen(eq=False)
class Contents:
    """Everything that can be reached from an object.

    Attributes:
        leaves: by place (``".store['x']"``): tensors, arrays, plain values, the classes of opened
            objects, and the rest. A second way to one place is the text ``"same as <place>"``.
        kept: objects and leaves without tensors, which copies share.
        tensors: whether there is a tensor or an array among the leaves.
    """

    leaves: list[tuple[str, Any]]
    kept: list[Any]
    tensors: bool


def is_array(value: Any) -> bool:
    """Return whether a value is a NumPy array, without importing NumPy."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def is_registered(value: Any) -> bool:
    """Return whether torch's pytree knows the parts of a class that is not a builtin container."""
    return type(value) in pytree.SUPPORTED_NODES and not isinstance(value, (dict, list, tuple))


def is_part(value: Any) -> bool:
    """Return whether a value in an object is copied separately, into the object's copy."""
    return isinstance(value, (Tensor, PackedSequence)) or is_array(value) or is_registered(value)


def contents(value: Any) -> Contents:
    """Return everything that can be reached from an object.

    Example:
        >>> from types import SimpleNamespace
        >>> x = torch.zeros(2)
        >>> contents(SimpleNamespace(x=x, y=x, n=1)).leaves[1:]
        [('.x', tensor([0., 0.])), ('.y', 'same as .x'), ('.n', 1)]
    """
    walk = _Walk()
    found = walk.visit(value, "")
    return Contents(walk.leaves, walk.kept, found)


def holds_tensors(value: Any) -> bool:
    """Return whether an object, itself not a tensor, has tensors or arrays in its attributes."""
    if isinstance(value, (*_PLAIN, *_CLOSED, Tensor)) or is_array(value):
        return False
    return contents(value).tensors


def rebuilt(value: Any, inside: Contents, leaves: Sequence[Any]) -> Any:
    """Return a copy of an object with other leaves, in the order of those inside."""
    copies = {id(each): each for each in inside.kept}
    for (_, old), new in zip(inside.leaves, leaves, strict=True):
        if not isinstance(old, _PLAIN):
            copies[id(old)] = new
    return _copied(value, copies)


def _copied(value: Any, copies: dict[int, Any]) -> Any:
    """Copy an object by copying its contents; ``copies`` has the copies made before, by id."""
    if isinstance(value, _PLAIN):
        return value
    if type(value) is weakref.ref:  # to the owner, whose copy is begun before its parts
        return weakref.ref(copies[id(value())]) if id(value()) in copies else value
    if id(value) in copies:
        return copies[id(value)]
    if isinstance(value, (tuple, frozenset)):
        base: Any = tuple if isinstance(value, tuple) else frozenset
        fresh = base.__new__(type(value), [_copied(child, copies) for child in value])
        copies[id(value)] = fresh
    else:
        fresh = copies[id(value)] = _empty(value)
        if isinstance(value, dict):
            for key, child in value.items():
                dict.__setitem__(fresh, key, _copied(child, copies))
        elif isinstance(value, list):
            list.extend(fresh, [_copied(child, copies) for child in value])
        elif isinstance(value, set):
            set.update(fresh, [_copied(child, copies) for child in value])
    _copy_attributes(value, fresh, copies)
    return fresh


def _empty(value: Any) -> Any:
    """Return an object of the same class without items and attributes; no ``__init__`` runs."""
    base = next((base for base in (dict, list, set) if isinstance(value, base)), object)
    try:
        return base.__new__(type(value))
    except TypeError:  # a class written in C has its own state, which only copy.copy knows
        fresh = _shallow(value)
    if base is not object:
        fresh.clear()
    return fresh


def _shallow(value: Any) -> Any:
    try:
        fresh = copy.copy(value)
    except Exception as error:
        raise _not_copied(value, f"copy.copy fails: {error}") from error
    if fresh is value:
        raise _not_copied(value, "copy.copy returns the object itself")
    return fresh


def _not_copied(value: Any, reason: str) -> UnsupportedError:
    return UnsupportedError(
        "a step hands a copy of its batch to the model, and the "
        f"{type(value).__qualname__} in this batch cannot be copied: {reason}. Register its parts "
        "with torch.utils._pytree.register_pytree_node, or give the batch as a dict of tensors."
    )


def _copy_attributes(value: Any, fresh: Any, copies: dict[int, Any]) -> None:
    own = getattr(value, "__dict__", None)
    if own is value:  # a dict that is its own attributes
        fresh.__dict__ = fresh
    elif own:
        fresh.__dict__.update({name: _copied(child, copies) for name, child in own.items()})
    for name, child in in_slots(value):
        object.__setattr__(fresh, name, _copied(child, copies))


class _Walk:
    """One pass through an object that visits each thing in it once."""

    def __init__(self) -> None:
        self.leaves: list[tuple[str, Any]] = []
        self.kept: list[Any] = []
        self.places: dict[int, str] = {}
        self.without: set[int] = set()  # ids of objects without tensors

    def visit(self, value: Any, place: str) -> bool:
        """Walk a value; return whether there are tensors in it."""
        if isinstance(value, _PLAIN):
            self.leaves.append((place, value))
            return False
        if isinstance(value, weakref.ref):  # most often to the owner, whose class sets it
            return False
        if (first := self.places.get(id(value))) is not None:
            self.leaves.append((place, f"same as {first}"))
            return id(value) not in self.without  # a way back to an owner counts as tensors
        self.places[id(value)] = place
        if is_part(value):
            self.leaves.append((place, value))
            return True
        found = self._inside(value, place)
        if not found:
            self.without.add(id(value))
            if not isinstance(value, (dict, list, tuple, set, frozenset)):
                self.kept.append(value)
        return found

    def _inside(self, value: Any, place: str) -> bool:
        children = None if isinstance(value, _CLOSED) else _children(value)
        self.leaves.append((place, value if children is None else type(value)))
        found = [self.visit(child, place + step) for step, child in children or ()]
        return any(found)  # after all were visited


def _children(value: Any) -> Iterator[tuple[str, Any]] | None:
    """Return the parts of a value, attributes last; ``None`` if it is opaque."""
    items: Iterator[tuple[str, Any]] = iter(())
    if isinstance(value, dict):
        items = ((f"[{key!r}]", child) for key, child in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        items = ((f"[{index}]", child) for index, child in enumerate(value))
    elif not hasattr(value, "__dict__") and not slots_of(value):
        return None
    attributes = [*getattr(value, "__dict__", {}).items(), *in_slots(value)]
    return iter([*items, *[(f".{name}", child) for name, child in attributes]])


def in_slots(value: Any) -> list[tuple[str, Any]]:
    """Return the attributes in slots that are set."""
    found = []
    for name in slots_of(value):
        try:
            found.append((name, object.__getattribute__(value, name)))
        except AttributeError:  # not set
            continue
    return found


def slots_of(value: Any) -> list[str]:
    # Includes the slots of all bases, with private names mangled.
    return list(copyreg._slotnames(type(value)))  # type: ignore[attr-defined]


def moves(value: Any) -> bool:
    """Return whether the class has methods ``clone`` and ``to``, as tensors have."""
    return all(callable(getattr(type(value), name, None)) for name in ("clone", "to"))
