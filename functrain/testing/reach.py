"""What the functions of a user can reach: other functions, classes, globals, closures, defaults."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Container, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn

from functrain.testing.cells import Cell, attribute, is_data, of_class, of_outer_module

_CACHED = type(functools.lru_cache(lambda: None))


def of_functions(functions: list[FunctionType]) -> Iterator[Cell]:
    """Globals, closure variables, defaults and attributes that functions use."""
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


def of_classes(roots: list[Any], functions: list[FunctionType]) -> Iterator[Cell]:
    """Attributes of the user's classes that functions or roots are of, or name."""
    values = [*roots, *(value for each in functions for value in _named(each))]
    classes = [value if isinstance(value, type) else type(value) for value in values]
    for each in dict.fromkeys(part for cls in classes for part in cls.__mro__):
        if is_users(each):
            yield from of_class(each)


def caches(roots: list[Any], functions: list[FunctionType]) -> dict[str, Any]:
    """What is called through ``functools.lru_cache`` or ``cache``, by name."""
    named = [*roots, *(value for each in functions for value in _named(each))]
    members = [v for value in named if isinstance(value, type) for v in vars(value).values()]
    return {
        f"{each.__module__}.{each.__qualname__}": each
        for each in (*named, *members)
        if is_cached(each)
    }


def is_cached(value: Any) -> bool:
    """Whether a function is one of ``functools.lru_cache`` or ``cache``."""
    return isinstance(value, _CACHED)


def naming(functions: list[FunctionType], ids: Container[int]) -> list[tuple[dict[str, Any], str]]:
    """Where functions name something as a global: scope, name there.

    Args:
        functions: of the user's.
        ids: of what is looked for.
    """
    places = [place for function in functions for place in _globals(function)]
    return [(scope, name) for scope, name in places if id(scope[name]) in ids]


def reached(roots: list[Any]) -> list[FunctionType]:
    """The functions of the user's that some may call, themselves included.

    Args:
        roots: functions, methods, classes, objects with ``__call__``.
    """
    found: dict[int, FunctionType] = {}
    waiting = list(roots)
    while waiting:
        value = waiting.pop()
        for function in _functions(value):
            if id(function) not in found and is_users(function):
                found[id(function)] = function
                waiting += _named(function)
    return list(found.values())


def is_users(value: Any) -> bool:
    """Whether a function or class is of the user's own code, not of a library."""
    root = str(getattr(value, "__module__", "")).partition(".")[0]
    if root in sys.stdlib_module_names - {"__main__"} or root in ("torch", "functrain", "numpy"):
        return False
    file = getattr(sys.modules.get(getattr(value, "__module__", "")), "__file__", None) or ""
    return "site-packages" not in file


def _functions(value: Any) -> list[FunctionType]:
    """The functions behind something that may be called."""
    if isinstance(value, functools.partial):
        return [found for each in (value.func, *value.args) for found in _functions(each)]
    value = getattr(value, "__func__", value)
    if callable(value) and not isinstance(value, type):
        value = inspect.unwrap(value, stop=lambda each: isinstance(each, FunctionType))
    if isinstance(value, FunctionType):
        return [value]
    cls = value if isinstance(value, type) else type(value)
    if not is_users(cls):
        return []
    members = [vars(each) for each in cls.__mro__ if is_users(each)]
    parts = [getattr(each, "fget", each) for own in members for each in own.values()]
    parts = [getattr(each, "__func__", getattr(each, "__wrapped__", each)) for each in parts]
    return [each for each in parts if isinstance(each, FunctionType)]


def _named(function: FunctionType) -> list[Any]:
    """The globals and closure variables that a function names."""
    found = [scope[name] for scope, name in _globals(function)]
    return found + [value for _, value in _cells(function)]


def _globals(function: FunctionType) -> list[tuple[dict[str, Any], str]]:
    """The globals a function names, and those of the user's modules that it reaches into."""
    scope, names = function.__globals__, names_in(function.__code__)
    found = [(scope, name) for name in names if name in scope]
    for name in names:
        module = scope.get(name)
        if isinstance(module, ModuleType) and is_users_module(module):
            found += [(vars(module), inner) for inner in names if inner in vars(module)]
    return found


def is_users_module(module: ModuleType) -> bool:
    """Whether a module is of the user's own code."""
    probe = type("probe", (), {"__module__": module.__name__})
    return is_users(probe)


def names_in(code: CodeType) -> list[str]:
    """The names of globals and attributes in a piece of code and in those within it."""
    inner = [
        name for part in code.co_consts if isinstance(part, CodeType) for name in names_in(part)
    ]
    return list(dict.fromkeys([*code.co_names, *inner]))


def _cells(function: FunctionType) -> list[tuple[str, Any]]:
    pairs = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found = []
    for name, cell in pairs:
        try:
            found.append((name, cell.cell_contents))
        except ValueError:  # not filled yet
            continue
    return found


def _held(scope: dict[str, Any], name: str, full: str, kind: str) -> Iterator[Cell]:
    """The cell of a value, or those of the module that it is."""
    if isinstance(scope[name], nn.Module):
        yield from of_outer_module(scope[name], full)
    elif is_data(scope[name]):
        yield attribute(scope, name, full, kind)


def _closure(function: FunctionType) -> Iterator[Cell]:
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    for name, value in _cells(function):
        full = f"{function.__qualname__}: {name}"
        if isinstance(value, nn.Module):
            yield from of_outer_module(value, full)
        elif is_data(value):
            read = functools.partial(getattr, cells[name], "cell_contents")
            write = functools.partial(setattr, cells[name], "cell_contents")
            yield Cell(full, "closure variable", read, write)


def _default(function: FunctionType, index: int) -> Cell:
    defaults = function.__defaults__ or ()
    code = function.__code__
    name = code.co_varnames[code.co_argcount - len(defaults) + index]

    def write(value: Any) -> None:
        own = list(function.__defaults__ or ())
        own[index] = value
        function.__defaults__ = tuple(own)

    return Cell(
        f"{function.__qualname__}: {name}",
        "default of an argument",
        lambda: (function.__defaults__ or ())[index],
        write,
    )
