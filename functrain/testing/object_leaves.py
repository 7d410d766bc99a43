"""Walk every leaf of a Python value, including modules, objects and generators.

``functrain.tree`` walks states and batches; checks must also see what a module, an optimizer or a
listener keeps in attributes. A place is written as Python would reach it: ``state.params['w']``.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from functrain.core.state import TrainState
from functrain.tree.objects import attributes, is_array

_DEEPEST = 12
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_OPAQUE = (type, FunctionType, MethodType, BuiltinFunctionType, ModuleType, torch.dtype)
# Attributes that every module has: tensors, children and hooks.
OF_ALL_MODULES = frozenset(vars(nn.Module()))


def leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Walk the leaves of any value in order.

    Leaves are tensors (their ``.grad`` follows them), arrays, generators, plain values and opaque
    objects, such as functions.

    Example:
        >>> list(leaves({"w": [1.0, None]}, "state"))
        [("state['w'][0]", 1.0), ("state['w'][1]", None)]
        >>> [place for place, _ in leaves(nn.Linear(2, 1), "module")][:2]
        ['module.weight', 'module.bias']
    """
    return _walk(value, name, frozenset())


def is_generator(value: Any) -> bool:
    """Return whether a value is a random generator whose state can be read."""
    numpy = sys.modules.get("numpy")
    kinds: tuple[Any, ...] = (torch.Generator, random.Random)
    if numpy is not None:
        kinds += (numpy.random.Generator, numpy.random.RandomState)
    return isinstance(value, kinds)


def _walk(value: Any, place: str, within: frozenset[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Tensor):
        yield place, value
        if value.is_leaf and value.grad is not None:
            yield f"{place}.grad", value.grad
        return
    if _is_leaf(value) or id(value) in within or len(within) >= _DEEPEST:
        yield place, value
        return
    for step, child in _children(value):
        yield from _walk(child, place + step, within | {id(value)})


def is_compilers(value: Any) -> bool:
    """Return whether a value belongs to torch's compiler, whose caches are not state."""
    return type(value).__module__.startswith(("torch._dynamo.", "torch._inductor."))


def _is_leaf(value: Any) -> bool:
    if isinstance(value, (*_PLAIN, *_OPAQUE)) or is_array(value) or is_generator(value):
        return True
    if is_compilers(value):
        return True
    return not _has_children(value)


def _has_children(value: Any) -> bool:
    containers = (Mapping, list, tuple, deque)
    known = isinstance(value, containers) or attrs.has(type(value)) or hasattr(value, "__dict__")
    return known or bool(attributes(value))


def _children(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, nn.Module):
        return _of_module(value)
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", child) for key, child in list(value.items())]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return [(f".{name}", getattr(value, name)) for name in value._fields]
    if isinstance(value, list | tuple | deque):
        return [(f"[{index}]", child) for index, child in enumerate(value)]
    own = attributes(value)
    if isinstance(value, TrainState):  # who has its tensors is no value of a state
        own.pop("_loan")
    if attrs.has(type(value)):
        names = [field.name for field in attrs.fields(type(value))]
        own = {name: getattr(value, name) for name in names if hasattr(value, name)} | own
    return [(f".{name}", child) for name, child in own.items()]


def _of_module(module: nn.Module) -> list[tuple[str, Any]]:
    held = {**module._parameters, **module._buffers, **module._modules}
    own = {name: value for name, value in vars(module).items() if name not in OF_ALL_MODULES}
    everything = {**held, "training": module.training, **own}
    return [(f".{name}", value) for name, value in everything.items()]
