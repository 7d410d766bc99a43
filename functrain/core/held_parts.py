"""The parts of a module that its functions and weak references hold on to.

A copy of a module shares its functions, and so the parts of the module that they hold on to: by
closures, default arguments or weak references. Such a copy would go on to use the original.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

from functrain.core.module_tensors import places
from functrain.errors import ModelError


def refuse_shared(source: nn.Module, copied: nn.Module) -> None:
    """Refuse a copy of a module with attributes that go on to use the original."""
    parts: dict[int, Any] = {id(part): part for part in source.modules()}
    parts |= {id(tensor): tensor for tensor in (*source.parameters(), *source.buffers())}
    for where, value, held in _holders(copied):
        if id(held) in parts:
            raise ModelError(
                f"{value}, {where}, refers to a part of the module, and so would a copy of it. "
                "functrain works on a private copy of the module; pass a factory instead: "
                "functrain.program(lambda: Model(...), ...)"
            )


def refuse_tensors(module: nn.Module, paths: dict[int, str]) -> None:
    """Refuse functions that hold on to tensors that a step replaces: ``paths``, by their ids."""
    for where, value, held in _holders(module):
        if isinstance(held, Tensor) and id(held) in paths:
            raise ModelError(
                f"{value}, {where}, holds on to {paths[id(held)]!r}; a function cannot be given "
                "other tensors for a step, so the forward would read the ones it began with. Let "
                "it hold the module, and read the attribute when it is called"
            )


def has_holders(module: nn.Module) -> bool:
    """Return whether a function or weak reference in a module holds on to a part of it."""
    parts = {id(part): part for part in module.modules()}
    return any(id(held) in parts for _, _, held in _holders(module))


def _holders(module: nn.Module) -> Iterator[tuple[str, str, Any]]:
    """Yield (place, name, held) for all that functions and weak references hold on to."""
    seen = {id(vars(submodule)) for submodule in module.modules()}
    for path, submodule in module.named_modules():
        for _, key, value in places(vars(submodule), seen):
            for held in _held(value, set()):
                name = getattr(value, "__qualname__", type(value).__name__)
                yield f"{key!r} of {path or type(module).__name__!r}", name, held


def _held(value: Any, seen: set[int]) -> Iterator[Any]:
    """Yield the modules and tensors that a copy of a value shares with it."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, weakref.ReferenceType):
        target = value()
        inside: list[Any] = [target] if isinstance(target, nn.Module) else []
    elif isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if not _is_empty(cell)]
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        inside = [*cells, *defaults]
    elif isinstance(value, BuiltinMethodType):
        inside = [value.__self__]
    elif isinstance(value, functools.partial):
        inside = [value.func]
    else:
        return
    for one in inside:
        yield from _reached(one, seen)


def _reached(value: Any, seen: set[int]) -> Iterator[Any]:
    """Yield the modules and tensors in what a function holds on to."""
    if isinstance(value, nn.Module | Tensor):
        yield value
    elif isinstance(value, MethodType):
        yield from _reached(value.__self__, seen)
    elif isinstance(value, dict | list | tuple | functools.partial):
        if id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, functools.partial):
                value = (value.func, value.args, value.keywords)
            for one in value.values() if isinstance(value, dict) else value:
                yield from _reached(one, seen)
    else:
        yield from _held(value, seen)


def _is_empty(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # not filled yet
        return True
    return False
