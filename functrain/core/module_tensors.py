"""Where a module holds its tensors: by ``nn.Module``'s own means, and in attributes besides.

What is bound must be put everywhere a forward may read it. Where that cannot be done, in tuples
and in functions that hold on to the module they were made in, the module is refused: its forward
would go on to read the tensors it was made with, without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

from functrain.errors import ModelError

# A mutable container of the module that holds a tensor, and the key it is held under.
Owner = tuple[Any, Any]


def owners(module: nn.Module, paths: dict[int, str]) -> dict[str, list[Owner]]:
    """Every place that holds each tensor, that of ``nn.Module`` first.

    Args:
        module: the shell.
        paths: of its tensors, by their ids.

    Raises:
        ModelError: a tuple holds one of them.
    """
    found: dict[str, list[Owner]] = {path: [] for path in paths.values()}
    seen: set[int] = set()
    submodules = list(module.modules())
    roots = [tensors for m in submodules for tensors in (m._parameters, m._buffers)]
    for container in [*roots, *map(vars, submodules)]:
        for place, key, value in _places(container, seen):
            if isinstance(value, Tensor) and id(value) in paths:
                found[paths[id(value)]].append((place, key))
            elif isinstance(value, tuple):
                _refuse_in_tuple(value, key, paths)
    return found


def lists(module: nn.Module, paths: dict[int, str]) -> list[tuple[dict[str, Any], str, Any]]:
    """Attributes that are lists with some of the tensors, each with the module's attributes."""
    return [
        (vars(submodule), name, value)
        for submodule in module.modules()
        for name, value in vars(submodule).items()
        if isinstance(value, list) and any(id(part) in paths for part in value)
    ]


def refuse_closures(source: nn.Module, copied: nn.Module) -> None:
    """Refuse a copy of a module with functions that go on to use the original.

    Args:
        source: the original.
        copied: the copy; some modules make such functions anew for it.

    Raises:
        ModelError: a function in an attribute or a hook holds on to a part of the original.
    """
    parts: dict[int, Any] = {id(part): part for part in source.modules()}
    parts |= {id(tensor): tensor for tensor in (*source.parameters(), *source.buffers())}
    seen: set[int] = set()
    for path, submodule in copied.named_modules():
        for _, key, value in _places(vars(submodule), seen):
            held = _held(value) if isinstance(value, FunctionType) else ()
            if any(id(one) in parts for one in held):
                raise ModelError(
                    f"{value.__qualname__}, {key!r} of {path or type(source).__name__!r}, holds on "
                    "to a part of the module, which a copy of it goes on to use. functrain works "
                    "on a private copy of the module; pass a factory instead: "
                    "functrain.program(lambda: Model(...), ...)"
                )


def _places(container: Any, seen: set[int]) -> Iterator[tuple[Any, Any, Any]]:
    """(container, key, value) of all that is in a dict or list, at any depth."""
    if id(container) in seen:
        return
    seen.add(id(container))
    pairs = container.items() if isinstance(container, dict) else enumerate(container)
    for key, value in list(pairs):
        if isinstance(value, dict | list):
            yield from _places(value, seen)
        else:
            yield container, key, value


def _held(function: FunctionType) -> Iterator[Any]:
    """What a function has from around it; of bound methods, what they are bound to."""
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:  # not filled yet
            continue
        yield content.__self__ if isinstance(content, MethodType) else content


def _refuse_in_tuple(held: tuple[Any, ...], key: Any, paths: dict[int, str]) -> None:
    for value in held:
        if isinstance(value, Tensor) and id(value) in paths:
            raise ModelError(
                f"a tuple at {key!r} holds {paths[id(value)]!r}; a tuple cannot be given other "
                "tensors for a step, so the forward would read the ones it began with. Make it a "
                "list"
            )
        if isinstance(value, tuple):
            _refuse_in_tuple(value, key, paths)
