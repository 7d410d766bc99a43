"""Name what the code in a program can keep between steps: attributes, globals, closures, defaults.

Only the functions and objects that the program was given are searched, not what they call.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

from torch import nn

from functrain.core.protocol import AnyProgram


def module_of(program: AnyProgram) -> nn.Module:
    """Return the modules of a program as one; a module without children if it has none."""
    inner = program.leaves()
    if "" in inner:
        return inner[""].fixed.model.module
    modules = {prefix.rstrip("."): leaf.fixed.model.module for prefix, leaf in inner.items()}
    return nn.ModuleDict(modules)


def variables(program: AnyProgram) -> dict[str, Any]:
    """Return the values that the code of a program can change, by name.

    A global is named by its module, ``losses.COUNT``; a closure variable or a default by its
    function, ``loss: seen``; an attribute by the place of its object, ``optimizer.lr.latest``.
    """
    module = module_of(program)
    objects = {"module": module, **dict(_given(program))}
    found = dict(objects)
    for value in [*objects.values(), *module.modules()]:
        for cls in _classes(value):
            found |= {f"{cls.__qualname__}.{name}": each for name, each in vars(cls).items()}
        for function in _functions(value):
            found |= _of_function(function)
    return {name: value for name, value in found.items() if not _is_special(name)}


def _is_special(name: str) -> bool:
    return name.rpartition(".")[2].startswith("__") and name.endswith("__")


def _given(program: AnyProgram) -> Iterator[tuple[str, Any]]:
    """Yield the functions and objects that a program was given, and what is bound in them."""
    for name, function in getattr(program.recipe, "functions", {}).items():
        yield from _with_bound(function, name)
    for leaf in program.leaves().values():
        optimizer = leaf.recipe.optimizer
        yield from _with_bound(leaf.recipe.loss, "loss")
        yield "optimizer", optimizer
        rates = optimizer.lr if isinstance(optimizer.lr, Mapping) else {"lr": optimizer.lr}
        for name, rate in rates.items():
            yield from _with_bound(rate, f"optimizer.{name}")


def _with_bound(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield a callable, and the object of a method or the arguments of a partial."""
    yield name, value
    if isinstance(value, MethodType):
        yield f"{name}.self", value.__self__
    elif isinstance(value, functools.partial):
        yield from _with_bound(value.func, f"{name}.func")
        yield from ((f"{name}.args[{index}]", each) for index, each in enumerate(value.args))
        yield f"{name}.keywords", value.keywords


def _functions(value: Any) -> list[FunctionType]:
    """Return the user's functions behind a value: itself, or the methods of its class."""
    value = inspect.unwrap(getattr(value, "__func__", value)) if callable(value) else value
    if isinstance(value, FunctionType):
        return [value] if _is_user_code(value) else []
    members = [member for cls in _classes(value) for member in vars(cls).values()]
    return [member for member in members if isinstance(member, FunctionType)]


def _classes(value: Any) -> list[type]:
    """Return the user's classes that an object belongs to."""
    return [cls for cls in type(value).__mro__ if _is_user_code(cls)]


def _of_function(function: FunctionType) -> dict[str, Any]:
    scope, place = function.__globals__, function.__qualname__
    found = {
        f"{function.__module__}.{n}": scope[n] for n in _names(function.__code__) if n in scope
    }
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    # An empty cell equals only other empty ones, without a look at their contents.
    found |= {f"{place}: {n}": cell.cell_contents for n, cell in cells if cell != CellType()}
    parameters = inspect.signature(function).parameters.values()
    found |= {f"{place}: {p.name}": p.default for p in parameters if p.default is not p.empty}
    return found | {f"{place}.{name}": value for name, value in vars(function).items()}


def _names(code: CodeType) -> list[str]:
    """Return the names of globals and attributes in a code object and nested ones."""
    inner = [part for part in code.co_consts if isinstance(part, CodeType)]
    return [*code.co_names, *(name for part in inner for name in _names(part))]


def _is_user_code(value: Any) -> bool:
    """Return whether a function or class is the user's own code, not a library's."""
    module = str(getattr(value, "__module__", ""))
    root = module.partition(".")[0]
    if root in sys.stdlib_module_names - {"__main__"} or root in ("torch", "functrain", "numpy"):
        return False
    return "site-packages" not in (getattr(sys.modules.get(module), "__file__", None) or "")
