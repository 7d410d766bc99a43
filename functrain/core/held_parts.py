"""Objects that functions and weak references of a module hold on to, unseen by a copy."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

from functrain.core.module_tensors import places
from functrain.errors import ModelError


def refuse_tensors(module: nn.Module, paths: dict[int, str]) -> None:
    """Refuse functions that hold on to tensors that a step replaces: ``paths``, by their ids."""
    for where, value, held in holders(module):
        if isinstance(held, Tensor) and id(held) in paths:
            raise ModelError(
                f"{value}, {where}, holds on to {paths[id(held)]!r}; a function cannot be given "
                "other tensors for a step, so the forward would read the ones it began with. Let "
                "it hold the module, and read the attribute when it is called"
            )


def holders(module: nn.Module) -> Iterator[tuple[str, str, Any]]:
    """Yield (place, name, held) for all that functions and weak references hold on to."""
    seen = {id(vars(submodule)) for submodule in module.modules()}
    for path, submodule in module.named_modules():
        for _, key, value in places(vars(submodule), seen):
            for held in _held(value, set()):
                name = getattr(value, "__qualname__", type(value).__name__)
                yield f"{key!r} of {path or type(module).__name__!r}", name, held


def _held(value: Any, seen: set[int]) -> Iterator[Any]:
    """Yield what a copy of a value shares with it."""
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
    """Yield what can be written to in what a function holds on to."""
    if isinstance(value, MethodType):
        yield from _reached(value.__self__, seen)
        return
    if isinstance(value, nn.Module | Tensor | dict | list | set) or _is_object(value):
        yield value
    if isinstance(value, dict | list | tuple | functools.partial):
        if id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, functools.partial):
                value = (value.func, value.args, value.keywords)
            for one in value.values() if isinstance(value, dict) else value:
                yield from _reached(one, seen)
    else:
        yield from _held(value, seen)


def _is_object(value: Any) -> bool:
    plain = isinstance(value, type | FunctionType | BuiltinMethodType | functools.partial)
    return not plain and bool(type(value).__dictoffset__)


def _is_empty(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # not filled yet
        return True
    return False
