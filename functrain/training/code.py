"""A fingerprint of the code that a run depends on, so that a repeated call notices other code.

It holds, by the place from which a run reaches it, each function of the user's own files, as a
digest of its bytecode and constants, and each plain value or tensor that such functions close over,
have as a default, hold in a partial or read from globals, attributes and dicts. A configuration
counts as far as some function reads it by name, so a longer ``epochs`` in it is no other code.

Not seen: functions of installed packages, compiled extensions and local imports; values that are
computed while the code runs; and what lies beyond the limits below.
"""

from __future__ import annotations

import argparse
import enum
import functools
import inspect
import os
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from xxhash import xxh3_64_hexdigest

from functrain.data.description import fingerprint
from functrain.training.bytecode import digest, global_names, is_own, is_own_module, read_names

_MOST = 2000  # functions, objects and containers in all
_MANY = 64  # items of a container
_LONGEST = 80  # characters of a value that is recorded as it is
_PLAIN: tuple[type, ...] = (
    *(bool, int, float, complex, str, bytes, type(None), enum.Enum, os.PathLike, range, slice),
    *(torch.dtype, torch.device, torch.Size, np.generic, np.dtype),
)
_ARRAYS = (Tensor, np.ndarray)
_NAMESPACES = (argparse.Namespace, types.SimpleNamespace)
_DATA = (Dataset, DataLoader, Sampler)
# Printed and compared, but never computed with; and often written by a decorator.
_SHOWING = frozenset(
    f"__{name}__" for name in ("repr", "str", "eq", "ne", "lt", "le", "gt", "ge", "hash", "reduce")
)
_OF_MODULES = frozenset(vars(nn.Module()))
# A key, and all keys of its dict: where none of them is named, each counts.
_Needed = tuple[tuple[str, frozenset[str]], ...]
_EMPTY = types.CellType()


def describe_code(
    roots: Mapping[str, Any], modules: Mapping[str, nn.Module] | None = None
) -> dict[str, Any]:
    """Return the functions and values that are reached from some objects, by their paths.

    The same code gives the same record in any process of one minor version of Python.

    Args:
        roots: loss, data and the like, by name.
        modules: models, whose tensors are a part of the state.

    Example:
        >>> code = describe_code({"loss": functools.partial(torch.add, alpha=2.0)})
        >>> code["values"]["loss.alpha"]
        '2.0'
    """
    walk = _Walk()
    for name, root in roots.items():
        if root is not None:
            walk.visit(name, root)
    for name, module in (modules or {}).items():
        walk.visit_module(name, module, in_state=True)
    while walk.waiting:
        walk.look_inside(*walk.waiting.popleft())
    return {
        "python": "{}.{}".format(*sys.version_info),
        "functions": walk.functions,
        "values": {path: text for path, text, needed in walk.values if walk.counts(needed)},
    }


def code_differences(before: Any, now: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each function or value that differs, where both records know it."""
    if not isinstance(before, dict):  # of an earlier version
        return
    if before["python"] != now["python"]:
        yield f"the code was compiled by Python {before['python']}, so it cannot be compared"
    else:
        for path, (name, digest) in now["functions"].items():
            if before["functions"].get(path, (name, digest))[1] not in (digest, None):
                yield f"the code of {name} ({path}) has changed"
    for path, text in now["values"].items():
        then = before["values"].get(path, text)
        if None not in (then, text) and then != text:
            yield f"code.{path}: {then} in the checkpoint, {text} now"


@attrs.define(eq=False)
class _Walk:
    """A walk through functions, objects and containers.

    Attributes:
        functions: name and digest by path.
        values: path, text, and the keys that some function must name for the value to count.
        names: attributes and texts that the functions read.
        seen: what was visited, by its id; held, so that no id is used twice.
        waiting: what is to be looked into, the nearest first.
    """

    functions: dict[str, list[str]] = attrs.field(factory=dict)
    values: list[tuple[str, str, _Needed]] = attrs.field(factory=list)
    names: set[str] = attrs.field(factory=set)
    seen: dict[int, Any] = attrs.field(factory=dict)
    waiting: deque[tuple[str, Any, _Needed, bool]] = attrs.field(factory=deque)

    def counts(self, needed: _Needed) -> bool:
        """Return whether functions read all these keys."""
        return all(key in self.names or (keys and not keys & self.names) for key, keys in needed)

    def visit(self, path: str, value: Any, needed: _Needed = (), described: bool = False) -> None:
        """Visit a value; where it is ``described`` elsewhere, only the code within it."""
        if not described and (text := _text(value)) is not None:
            self.values.append((path, text, needed))
        if isinstance(value, types.FunctionType) and is_own(value):
            name = f"{value.__module__}.{value.__qualname__}"
            self.functions[path] = [name, digest(value.__code__)]
        is_leaf = isinstance(value, _PLAIN + _ARRAYS)
        if not is_leaf and id(value) not in self.seen and len(self.seen) < _MOST:
            self.seen[id(value)] = value
            self.waiting.append((path, value, needed, described))

    def look_inside(self, path: str, value: Any, needed: _Needed, described: bool) -> None:
        """Visit what a function, an object or a container holds."""
        if isinstance(value, types.FunctionType):
            self._visit_function(path, value)
        elif isinstance(value, functools.partial):
            for name, held in {"func": value.func, "args": value.args, **value.keywords}.items():
                self.visit(f"{path}.{name}", held)
        elif isinstance(value, types.MethodType):
            self.visit(f"{path}.{value.__name__}", value.__func__)
            self.visit(f"{path}.self", value.__self__)
        elif isinstance(value, type):
            self._visit_class(path, value)
        elif isinstance(value, dict) or (isinstance(value, Mapping) and not described):
            keys = frozenset(key for key in value if isinstance(key, str))
            for key in list(value)[:_MANY]:
                own = ((key, keys),) if isinstance(key, str) else ()
                self.visit(f"{path}.{key}", value[key], needed + own, described)
        elif isinstance(value, list | tuple | Set):  # other sequences may run code or read files
            items = sorted(value, key=repr) if isinstance(value, Set) else value
            for index, each in enumerate(items[:_MANY]):
                self.visit(f"{path}.{index}", each, needed, described)
        elif type(value).__module__.partition(".")[0] == "functrain":  # described by the recipe
            for name, held in _attributes(value):
                if not name.startswith("_"):
                    self.visit(f"{path}.{name}", held, described=True)
        elif not isinstance(value, types.ModuleType):
            self._visit_object(path, value, needed)

    def _visit_function(self, path: str, function: types.FunctionType) -> None:
        if not is_own(function):
            if (inner := getattr(function, "__wrapped__", None)) is not None:
                self.visit(path, inner)
            return
        code = function.__code__
        self.names |= read_names(code)
        for parameter in inspect.signature(function, follow_wrapped=False).parameters.values():
            if parameter.default is not parameter.empty:
                self.visit(f"{path}.{parameter.name}", parameter.default)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            if cell != _EMPTY:  # the function that it is for is not defined yet
                self.visit(f"{path}.{name}", cell.cell_contents)
        for name in sorted(global_names(code) & function.__globals__.keys()):
            self._visit_global(f"{path}.{name}", function.__globals__[name], code)

    def _visit_global(self, path: str, value: Any, code: types.CodeType) -> None:
        """Visit a global; of a module, what the code may read from it."""
        if not isinstance(value, types.ModuleType):
            self.visit(path, value)
        elif is_own_module(value.__name__):
            for name in sorted(read_names(code) & vars(value).keys()):
                self._visit_global(f"{path}.{name}", vars(value)[name], code)

    def _visit_class(self, path: str, kind: type) -> None:
        """Visit the methods and plain attributes of a class, and of those it inherits from."""
        for base in kind.__mro__:
            for name, held in vars(base).items() if is_own(base) else ():
                function = getattr(held, "__func__", getattr(held, "fget", held))
                if isinstance(function, types.FunctionType) and name not in _SHOWING:
                    self.visit(f"{path}.{name}", function)
                elif isinstance(held, _PLAIN) and not name.startswith("__"):
                    self.visit(f"{path}.{name}", held, ((name, frozenset()),))

    def _visit_object(self, path: str, value: Any, needed: _Needed) -> None:
        """Visit an object of the user's, or one of a package that can be called or holds data."""
        kind = type(value)
        if isinstance(value, nn.Module):
            self.visit_module(path, value, needed)
        elif isinstance(value, _DATA) or hasattr(kind, "__getitem__"):
            # The description of data has their contents, batch size and order.
            self._visit_attributes(path, value, needed, lambda held: not isinstance(held, _PLAIN))
        elif is_own(kind) or callable(value) or isinstance(value, _NAMESPACES):
            self._visit_attributes(path, value, needed)
        # Others, such as loggers and trackers, differ from process to process.

    def visit_module(
        self, path: str, module: nn.Module, needed: _Needed = (), in_state: bool = False
    ) -> None:
        """Visit a module of torch's kind; ``in_state``, without tensors and layers of packages."""
        self.seen[id(module)] = module
        if not in_state:
            for name, tensor in module.state_dict().items():
                self.visit(f"{path}.{name}", tensor, needed)
        # The record of the layers has the numbers of torch's.
        described = in_state and not is_own(type(module))
        self._visit_attributes(path, module, needed, lambda held: described)
        for name, child in module.named_children():
            if id(child) not in self.seen:
                self.visit_module(f"{path}.{name}", child, needed, in_state)

    def _visit_attributes(
        self,
        path: str,
        value: Any,
        needed: _Needed,
        is_described: Callable[[Any], bool] = lambda _: False,
    ) -> None:
        kind = type(value)
        by_name = is_own(kind) or isinstance(value, _NAMESPACES)
        if is_own(kind):
            self._visit_class(path, kind)
        for name, held in _attributes(value):
            if by_name:
                needs = (*needed, (name, frozenset[str]()))
                self.visit(f"{path}.{name}", held, needs, is_described(held))
            elif not name.startswith("_"):
                self.visit(f"{path}.{name}", held, needed, is_described(held))


def _attributes(value: Any) -> list[tuple[str, Any]]:
    slots = (name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ()))
    found = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    found |= getattr(value, "__dict__", {})
    hidden = _OF_MODULES if isinstance(value, nn.Module) else frozenset[str]()
    return sorted((name, held) for name, held in found.items() if name not in hidden)


def _text(value: Any) -> str | None:
    """Return a leaf as text, and of a function or an object its name; ``None`` of others."""
    if isinstance(value, _ARRAYS):
        return fingerprint([value])
    if not isinstance(value, _PLAIN):
        if not callable(value) and not is_own(type(value)):
            return None
        named = value if hasattr(value, "__qualname__") else type(value)
        return f"{getattr(named, '__module__', None)}.{named.__qualname__}"
    if isinstance(value, str | os.PathLike) and os.path.isabs(value):
        value = os.path.basename(value)  # its last part does not move
    text = str(value) if isinstance(value, enum.Enum) else repr(value)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:40]}... {xxh3_64_hexdigest(text.encode(errors='replace'))[:8]}"
