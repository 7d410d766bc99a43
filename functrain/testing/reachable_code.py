"""Find what the user's functions can reach: functions, classes, globals, closures, defaults."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Container, Iterator
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn

from functrain.testing.variables import Variable, attribute, is_data, of_class, of_outer_module

_CACHED = type(functools.lru_cache(lambda: None))


def function_variables(functions: list[FunctionType]) -> Iterator[Variable]:
    """Yield the globals, closure variables, defaults and attributes that functions use."""
    seen = set()
    for function in functions:
        for scope, name in _globals(function):
            if (id(scope), name) not in seen:
                seen.add((id(scope), name))
                full = f"{scope.get('__name__', function.__module__)}.{name}"
                yield from _held(scope, name, full, "global")
        yield from _closure(function)
        for index, value in enumerate(function.__defaults__ or ()):
            if is_data(value):
                yield _default(function, index)
        keywords = function.__kwdefaults__ or {}
        for name in keywords:
            full = f"{function.__qualname__}: {name}"
            yield from _held(keywords, name, full, "default of an argument")
        for name in vars(function):
            yield attribute(vars(function), name, f"{function.__qualname__}.{name}")


def class_variables(roots: list[Any], functions: list[FunctionType]) -> Iterator[Variable]:
    """Yield the attributes of the user's classes that functions or roots belong to or name."""
    values = [*roots, *(value for each in functions for value in _named(each))]
    classes = [value if isinstance(value, type) else type(value) for value in values]
    for each in dict.fromkeys(part for cls in classes for part in cls.__mro__):
        if is_user_code(each):
            yield from of_class(each)


def caches(roots: list[Any], functions: list[FunctionType]) -> dict[str, Any]:
    """Return the functions cached by ``functools.lru_cache`` or ``cache``, by name."""
    named = [*roots, *(value for each in functions for value in _named(each))]
    members = [v for value in named if isinstance(value, type) for v in vars(value).values()]
    return {
        f"{each.__module__}.{each.__qualname__}": each
        for each in (*named, *members)
        if is_cached(each)
    }


def is_cached(value: Any) -> bool:
    """Return whether a function is cached by ``functools.lru_cache`` or ``cache``."""
    return isinstance(value, _CACHED)


def global_references(
    functions: list[FunctionType], ids: Container[int]
) -> list[tuple[dict[str, Any], str]]:
    """Return the (scope, name) under which functions refer to some objects as globals."""
    places = [place for function in functions for place in _globals(function)]
    return [(scope, name) for scope, name in places if id(scope[name]) in ids]


def reachable_functions(roots: list[Any]) -> list[FunctionType]:
    """Return the user's functions that are reachable from some roots, these included."""
    found: dict[int, FunctionType] = {}
    waiting = list(roots)
    while waiting:
        value = waiting.pop()
        for function in _functions(value):
            if id(function) not in found and is_user_code(function):
                found[id(function)] = function
                waiting += _named(function)
    return list(found.values())


def is_user_code(value: Any) -> bool:
    """Return whether a module, function or class is the user's own code, not a library's."""
    attribute = "__name__" if isinstance(value, ModuleType) else "__module__"
    module = str(getattr(value, attribute, ""))
    root = module.partition(".")[0]
    if root in sys.stdlib_module_names - {"__main__"} or root in ("torch", "functrain", "numpy"):
        return False
    return "site-packages" not in (getattr(sys.modules.get(module), "__file__", None) or "")


def _functions(value: Any) -> list[FunctionType]:
    """Return the functions behind a callable."""
    if isinstance(value, functools.partial):
        return [found for each in (value.func, *value.args) for found in _functions(each)]
    value = getattr(value, "__func__", value)
    if callable(value) and not isinstance(value, type):
        value = inspect.unwrap(value, stop=lambda each: isinstance(each, FunctionType))
    if isinstance(value, FunctionType):
        return [value]
    cls = value if isinstance(value, type) else type(value)
    if not is_user_code(cls):
        return []
    members = [vars(each) for each in cls.__mro__ if is_user_code(each)]
    parts = [getattr(each, "fget", each) for own in members for each in own.values()]
    parts = [getattr(each, "__func__", getattr(each, "__wrapped__", each)) for each in parts]
    return [each for each in parts if isinstance(each, FunctionType)]


def _named(function: FunctionType) -> list[Any]:
    """Return the values of the globals and closure variables that a function names."""
    found = [scope[name] for scope, name in _globals(function)]
    return found + [cell.cell_contents for _, cell in _cells(function)]


def _globals(function: FunctionType) -> list[tuple[dict[str, Any], str]]:
    """Return the globals that a function names, and those of user modules that it accesses."""
    scope, names = function.__globals__, names_in(function.__code__)
    found = [(scope, name) for name in names if name in scope]
    for name in names:
        module = scope.get(name)
        if isinstance(module, ModuleType) and is_user_code(module):
            found += [(vars(module), inner) for inner in names if inner in vars(module)]
    return found


def names_in(code: CodeType) -> list[str]:
    """Return the names of globals and attributes in a code object and nested ones."""
    inner = [
        name for part in code.co_consts if isinstance(part, CodeType) for name in names_in(part)
    ]
    return list(dict.fromkeys([*code.co_names, *inner]))


def _cells(function: FunctionType) -> Iterator[tuple[str, CellType]]:
    """Yield the names and cells of closure variables, except those not filled yet."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    # An empty cell equals only other empty ones, without a look at their contents.
    yield from ((name, cell) for name, cell in cells if cell != CellType())


def _held(scope: dict[str, Any], name: str, full: str, kind: str) -> Iterator[Variable]:
    """Yield the variable of a value, or those of a module."""
    if isinstance(scope[name], nn.Module):
        yield from of_outer_module(scope[name], full)
    elif is_data(scope[name]):
        yield attribute(scope, name, full, kind)


def _closure(function: FunctionType) -> Iterator[Variable]:
    for name, cell in _cells(function):
        full, value = f"{function.__qualname__}: {name}", cell.cell_contents
        if isinstance(value, nn.Module):
            yield from of_outer_module(value, full)
        elif is_data(value):
            read = functools.partial(getattr, cell, "cell_contents")
            write = functools.partial(setattr, cell, "cell_contents")
            yield Variable(full, "closure variable", read, write)


def _default(function: FunctionType, index: int) -> Variable:
    defaults = function.__defaults__ or ()
    code = function.__code__
    name = code.co_varnames[code.co_argcount - len(defaults) + index]

    def write(value: Any) -> None:
        own = list(function.__defaults__ or ())
        own[index] = value
        function.__defaults__ = tuple(own)

    return Variable(
        f"{function.__qualname__}: {name}",
        "default of an argument",
        lambda: (function.__defaults__ or ())[index],
        write,
    )
