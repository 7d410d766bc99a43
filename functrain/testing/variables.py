"""Python variables outside the state: read, change, save and restore them."""

from __future__ import annotations

import copy
import functools
import random
from collections import deque
from collections.abc import Callable, Iterator
from pickle import PicklingError
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from functrain.testing.object_leaves import OF_ALL_MODULES, is_compilers, is_generator
from functrain.testing.snapshots import changes, snapshot

_NOT_DATA = (ModuleType, type, nn.Module, FunctionType, MethodType, BuiltinFunctionType)
_UNCOPIABLE = (TypeError, RuntimeError, NotImplementedError, ValueError, copy.Error, PicklingError)


@attrs.frozen(eq=False)
class Variable:
    """A Python variable of any kind."""

    name: str
    kind: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    remove: Callable[[], object] = lambda: None


@attrs.frozen(eq=False)
class SavedVariable:
    """The value of a variable at one point in time: the object, and a copy of its content."""

    cell: Variable
    original: Any
    content: Any

    @property
    def is_used_up(self) -> bool:
        """Whether the value is an iterator, which is consumed by reading and cannot be restored."""
        return hasattr(type(self.original), "__next__")

    @classmethod
    def by(cls, cell: Variable) -> SavedVariable | None:
        """Save the value of a variable; return ``None`` if it cannot be copied."""
        value = cell.read()
        try:
            return cls(cell, value, copied(value))
        except _UNCOPIABLE:
            return None

    def differs(self) -> bool:
        """Return whether the variable has changed since."""
        now = self.cell.read()
        changed = changes(snapshot(self.content, ""), snapshot(now, ""))
        return now is not self.original or bool(changed)

    def put(self, value: Any) -> None:
        """Set another value, in place if possible, so that other references see it."""
        if type(value) is type(self.original) and filled(self.original, copied(value)):
            value = self.original
        if self.cell.read() is not value:
            self.cell.write(value)

    def restore(self) -> None:
        """Restore the same object with the same content."""
        if self.differs():
            if type(self.content) is type(self.original):
                filled(self.original, copied(self.content))
            self.cell.write(self.original)


def copied(value: Any) -> Any:
    """Return a deep copy; for a generator, one that draws the same numbers."""
    if isinstance(value, torch.Generator):
        return torch.Generator(value.device).set_state(value.get_state())
    return copy.deepcopy(value)


def filled(target: Any, content: Any) -> bool:
    """Copy the content of another object of the same type in place; return whether it worked."""
    if isinstance(target, Tensor):
        if target.shape != content.shape:
            return False
        with torch.no_grad():
            target.copy_(content)
    elif isinstance(target, list | deque):
        target.clear()
        target.extend(content)
    elif isinstance(target, dict | set):
        target.clear()
        target.update(content)
    elif is_generator(target):
        _set_state(target, content)
    elif attrs.has(type(target)):
        for field in attrs.fields(type(target)):
            object.__setattr__(target, field.name, getattr(content, field.name))
    elif hasattr(target, "__dict__"):
        vars(target).clear()
        vars(target).update(vars(content))
    else:
        return False
    return True


def _set_state(target: Any, content: Any) -> None:
    """Copy the state of another generator of the same type."""
    if isinstance(target, torch.Generator):
        target.set_state(content.get_state())
    elif isinstance(target, random.Random):
        target.setstate(content.getstate())
    else:  # of NumPy, old or new
        old, new = (
            getattr(x, "bit_generator", None) or x._bit_generator for x in (content, target)
        )
        new.state = old.state


def _parts(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield a module and its submodules, each with its place."""
    for path, part in module.named_modules():
        yield f"{name}.{path}" if path else name, part


def of_module(module: nn.Module, called: str = "module") -> Iterator[Variable]:
    """Yield the attributes of a module and its submodules, except tensors and children."""
    for prefix, part in _parts(module, called):
        for name, value in vars(part).items():
            if name not in OF_ALL_MODULES and is_data(value):
                yield attribute(vars(part), name, f"{prefix}.{name}")


def of_caches(module: nn.Module, called: str = "module") -> Iterator[Variable]:
    """Yield the non-persistent buffers of a module and its submodules.

    A buffer that is ``None`` when a program is created is not part of its states.
    """
    for prefix, part in _parts(module, called):
        for name in part._non_persistent_buffers_set & part._buffers.keys():
            yield attribute(part._buffers, name, f"{prefix}.{name}")


def of_outer_module(module: nn.Module, name: str) -> Iterator[Variable]:
    """Yield attributes and tensors of a module that is not part of the state."""
    yield from of_module(module, name)
    for prefix, part in _parts(module, name):
        for held in (part._parameters, part._buffers):
            for key, tensor in held.items():
                if tensor is not None:
                    yield attribute(held, key, f"{prefix}.{key}")


def of_object(value: Any, name: str) -> Iterator[Variable]:
    """Yield the attributes of an object, including those of modules in it."""
    if isinstance(value, nn.Module):
        yield from of_outer_module(value, name)
    elif hasattr(value, "__dict__") and not isinstance(value, (type, FunctionType)):
        for key, held in vars(value).items():
            if isinstance(held, nn.Module):
                yield from of_outer_module(held, f"{name}.{key}")
            elif is_data(held):
                yield attribute(vars(value), key, f"{name}.{key}")


def of_class(cls: type) -> Iterator[Variable]:
    """Yield the attributes of a class that are neither code nor descriptors."""
    for key, value in vars(cls).items():
        if key.startswith("__") or not is_data(value) or hasattr(type(value), "__get__"):
            continue
        read = functools.partial(vars(cls).get, key)
        write = functools.partial(setattr, cls, key)
        yield Variable(f"{cls.__qualname__}.{key}", "attribute", read, write)


def of_argument(value: Any, name: str) -> Variable:
    """Return an argument bound by ``functools.partial``, which can only change in place."""
    return Variable(name, "attribute", lambda: value, lambda other: None)


def attribute(scope: dict[str, Any], key: str, name: str, kind: str = "attribute") -> Variable:
    """Return the variable for a key in a dict, such as the attributes of an object."""
    write = functools.partial(scope.__setitem__, key)
    return Variable(name, kind, lambda: scope.get(key), write, lambda: scope.pop(key, None))


def is_data(value: Any) -> bool:
    """Return whether a value is neither code nor a module."""
    return not (isinstance(value, _NOT_DATA) or is_compilers(value))
