"""Find the user's own code and objects in a program, and the variables in them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType
from typing import Any

import attrs
from torch import nn

from functrain.core.program import Program
from functrain.core.protocol import AnyProgram
from functrain.testing.reachable_code import is_cached, is_user_code
from functrain.testing.variables import Variable, is_data, of_argument, of_module, of_object


def module_of(program: AnyProgram) -> nn.Module:
    """Return the modules of a program as one; a module without children if it has none."""
    inner = program.leaves()
    if "" in inner:
        return inner[""].fixed.model.module
    modules = {prefix.rstrip("."): leaf.fixed.model.module for prefix, leaf in inner.items()}
    return nn.ModuleDict(modules)


def roots_of(program: AnyProgram) -> list[Any]:
    """Return the user's functions, objects and classes that a step calls."""
    module = module_of(program)
    hooks = [
        hook
        for part in module.modules()
        for hook in (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
    ]
    own = [value for name, given in _given(program) for _, value in user_code_in(given, name)]
    return [*own, *hooks, *map(type, module.modules())]


def of_program(program: AnyProgram) -> Iterator[Variable]:
    """Yield the variables in objects: the module, and the user's objects in loss and optimizer."""
    yield from of_module(module_of(program))
    for name, given in _given(program):
        for place, value in user_code_in(given, name):
            if isinstance(value, functools.partial):
                parts = [(f"{place}.args[{i}]", each) for i, each in enumerate(value.args)]
                parts += [(f"{place}.keywords[{k!r}]", v) for k, v in value.keywords.items()]
                yield from (of_argument(each, at) for at, each in parts if is_data(each))
            else:
                yield from of_object(value, place)


def _given(program: AnyProgram) -> list[tuple[str, Any]]:
    functions = getattr(program.recipe, "functions", {})
    own = [(name, function) for name, function in functions.items() if function is not None]
    return [*own, *(each for leaf in program.leaves().values() for each in _given_to(leaf))]


def _given_to(program: Program) -> list[tuple[str, Any]]:
    recipe = program.recipe
    given = [("loss", recipe.loss), ("optimizer", recipe.optimizer)]
    # In a library's optimizer, the schedule is found as a field.
    own = is_user_code(type(recipe.optimizer))
    return [*given, ("optimizer.lr", recipe.optimizer.lr)] if own else given


def user_code_in(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield the user's functions and objects in a value, looking through library wrappers."""
    if isinstance(value, MethodType):
        yield place, value
        yield from user_code_in(value.__self__, place)
    elif isinstance(value, functools.partial):
        yield place, value
        for index, each in enumerate((value.func, *value.args)):
            yield from user_code_in(each, f"{place}.args[{index - 1}]" if index else place)
    elif isinstance(value, FunctionType) or is_cached(value) or is_user_code(type(value)):
        yield place, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from user_code_in(each, f"{place}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from user_code_in(each, f"{place}[{index}]")
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from user_code_in(getattr(value, field.name), f"{place}.{field.name}")
