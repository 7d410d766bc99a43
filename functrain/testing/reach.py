"""What the functions of a user can reach: other functions, globals, closures, defaults, clocks."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from functrain.testing.cells import Cell, attribute, is_data

CLOCKS = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")


def of_functions(functions: list[FunctionType]) -> Iterator[Cell]:
    """Globals, closure variables, defaults and attributes that functions use."""
    seen = set()
    for function in functions:
        module = function.__module__
        for scope, name in _globals(function):
            if is_data(scope[name]) and (id(scope), name) not in seen:
                seen.add((id(scope), name))
                yield attribute(scope, name, f"{scope.get('__name__', module)}.{name}", "global")
        yield from _closure(function)
        for index, value in enumerate(function.__defaults__ or ()):
            if is_data(value):
                yield _default(function, index)
        for name in vars(function):
            yield attribute(vars(function), name, f"{function.__qualname__}.{name}")


def clocks(functions: list[FunctionType]) -> list[tuple[dict[str, Any], str, str]]:
    """Where functions have imported a clock by its name: scope, name there, name in ``time``."""
    real = {getattr(time, name): name for name in CLOCKS}
    found = []
    for function in functions:
        for scope, name in _globals(function):
            value = scope[name]
            if callable(value) and getattr(value, "__module__", None) == "time" and value in real:
                found.append((scope, name, real[value]))
    return found


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
                waiting += [scope[name] for scope, name in _globals(function)]
                waiting += [value for _, value in _cells(function)]
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
        return _functions(value.func)
    value = getattr(value, "__func__", value)
    if isinstance(value, FunctionType):
        return [value]
    cls = value if isinstance(value, type) else type(value)
    if not is_users(cls):
        return []
    members = [vars(each) for each in cls.__mro__ if is_users(each)]
    parts = [getattr(each, "fget", each) for own in members for each in own.values()]
    parts = [getattr(each, "__func__", each) for each in parts]
    return [each for each in parts if isinstance(each, FunctionType)]


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


def _closure(function: FunctionType) -> Iterator[Cell]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if any(name == each and is_data(value) for each, value in _cells(function)):
            yield Cell(
                f"{function.__qualname__}: {name}",
                "closure variable",
                functools.partial(getattr, cell, "cell_contents"),
                functools.partial(setattr, cell, "cell_contents"),
            )


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
