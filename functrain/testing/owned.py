"""What of a program is the user's own code and objects, and the cells in these."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType
from typing import Any

import attrs

from functrain.core.program import Program
from functrain.testing.cells import Cell, is_data, of_argument, of_module, of_object
from functrain.testing.reach import is_cached, is_users


def roots_of(program: Program) -> list[Any]:
    """What a step calls of the user's."""
    module = program.fixed.model.module
    hooks = [
        hook
        for part in module.modules()
        for hook in (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
    ]
    own = [value for name, given in _given(program) for _, value in users_in(given, name)]
    return [*own, *hooks, *map(type, module.modules())]


def of_program(program: Program) -> Iterator[Cell]:
    """What is kept in objects: the module, and all of the user's own in loss and optimizer."""
    yield from of_module(program.fixed.model.module)
    for name, given in _given(program):
        for place, value in users_in(given, name):
            if isinstance(value, functools.partial):
                parts = [(f"{place}.args[{i}]", each) for i, each in enumerate(value.args)]
                parts += [(f"{place}.keywords[{k!r}]", v) for k, v in value.keywords.items()]
                yield from (of_argument(each, at) for at, each in parts if is_data(each))
            else:
                yield from of_object(value, place)


def _given(program: Program) -> list[tuple[str, Any]]:
    recipe = program.recipe
    given = [("loss", recipe.loss), ("optimizer", recipe.optimizer)]
    # The schedule of a library's optimizer is found in it, as a field.
    own = is_users(type(recipe.optimizer))
    return [*given, ("optimizer.lr", recipe.optimizer.lr)] if own else given


def users_in(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The user's functions and objects in a value, through what a library wraps around them."""
    if isinstance(value, MethodType):
        yield place, value
        yield from users_in(value.__self__, place)
    elif isinstance(value, functools.partial):
        yield place, value
        for index, each in enumerate((value.func, *value.args)):
            yield from users_in(each, f"{place}.args[{index - 1}]" if index else place)
    elif isinstance(value, FunctionType) or is_cached(value) or is_users(type(value)):
        yield place, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from users_in(each, f"{place}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from users_in(each, f"{place}[{index}]")
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from users_in(getattr(value, field.name), f"{place}.{field.name}")
