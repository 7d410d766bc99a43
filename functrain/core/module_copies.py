"""A module of functrain's own: a copy of the user's, or the one that a factory makes.

It is copied again whenever it is lent to a loss. ``copy.deepcopy`` takes 0.2 ms for each layer,
most of it for the empty dicts of its hooks. So :func:`module_copy` copies plain containers by their
own constructors, and everything else by ``deepcopy`` with the same memo, with the same result.
"""

from __future__ import annotations

import copy
import copyreg
import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from functrain.core import held_parts
from functrain.core.module_tensors import refuse, refuse_overlapping
from functrain.core.rng import derive, scoped
from functrain.errors import ModelError

Factory = Callable[[], nn.Module]

_SHARED = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, type),
        *(FunctionType, BuiltinFunctionType, torch.dtype, torch.device),
    }
)
_CONTAINERS = frozenset({dict, OrderedDict, list, set})
# The containers that each module has of its own, empty in most: of hooks, parameters, children.
_OF_EACH = frozenset(n for n, value in vars(nn.Module()).items() if type(value) in _CONTAINERS)
_OTHER = ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__")
_CUSTOM = ("__reduce__", "__reduce_ex__", "__getstate__")


def checked_copy(module: nn.Module) -> nn.Module:
    """Return a copy of the user's module that shares nothing with it."""
    refuse(module)
    _refuse_lazy(module)
    refuse_overlapping(module)
    try:
        copied = copy.deepcopy(module)
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"{type(module).__name__} cannot be copied ({error}). functrain works on a private "
            "copy of the module; pass a factory instead: functrain.program(lambda: Model(...), ...)"
        ) from error
    held_parts.refuse_shared(module, copied)
    return copied


def made_by(factory: Factory, seed: int) -> nn.Module:
    """Return the module that a factory makes under a seed."""
    if not callable(factory):
        raise ModelError(
            f"model: expected an nn.Module or a callable that returns one, got {factory!r}"
        )
    if needed := _needed(factory):
        name = getattr(factory, "__name__", type(factory).__name__)
        raise ModelError(
            f"model: {name} is missing its arguments {', '.join(needed)}: functrain calls it "
            f"without any. Write lambda: {name}(...), or give a module, {name}(...)"
        )
    with scoped(derive(seed, "init"), None):
        module = factory()
    if not isinstance(module, nn.Module):
        raise ModelError(f"the model factory must return an nn.Module, it returned {module!r}")
    refuse(module)
    _refuse_lazy(module)
    refuse_overlapping(module)
    return module


def _needed(factory: Factory) -> list[str]:
    """Return the parameters of a factory that have no default."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # some builtins have no signature
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in optional]


def _refuse_lazy(module: nn.Module) -> None:
    for path, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ModelError(
                f"parameter {path!r} has no shape yet (a lazy module). Run one forward pass "
                "through the module before making a program of it."
            )


def module_copy(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Return what ``copy.deepcopy(module, memo)`` returns."""
    copied: nn.Module = _copy(module, memo)
    return copied


def _copy(value: Any, memo: dict[int, Any]) -> Any:
    kind: Any = type(value)
    if kind in _SHARED:
        return value
    known = memo.get(id(value))
    if known is not None:
        return known
    if kind in _CONTAINERS:
        new = memo[id(value)] = kind()
        if not value:
            pass
        elif kind is list:
            new.extend([_copy(child, memo) for child in value])
        elif kind is set:
            new.update([_copy(child, memo) for child in value])
        else:
            new.update([(_copy(key, memo), _copy(child, memo)) for key, child in value.items()])
        return new
    if isinstance(value, Tensor) and value.grad_fn is not None:
        # An earlier forward computed it, as of ``nn.utils.spectral_norm``; deepcopy refuses it.
        computed = memo[id(value)] = value.detach().clone()
        return computed
    if isinstance(value, nn.Module) and _is_plain(kind):
        return _copy_module(value, memo)
    return copy.deepcopy(value, memo)


def _copy_module(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    kind: Any = type(module)
    new: Any = kind.__new__(kind)
    memo[id(module)] = new
    state = kind.__getstate__(module) if hasattr(kind, "__getstate__") else vars(module)
    copied = {}
    for name, value in state.items():
        if type(value) in _SHARED:
            copied[name] = value
        elif name in _OF_EACH and type(value) in _CONTAINERS and not value:  # in no memo
            copied[name] = type(value)()
        else:
            copied[name] = _copy(value, memo)
    new.__setstate__(copied)
    return new  # type: ignore[no-any-return]


@functools.cache
def _is_plain(kind: Any) -> bool:
    """Return whether objects of a class are made of their attributes, and copied by them."""
    return (
        not any(hasattr(kind, name) for name in _OTHER)
        and all(getattr(kind, name, None) is getattr(nn.Module, name, None) for name in _CUSTOM)
        and not issubclass(kind, dict | list | tuple | set)
        and kind not in copyreg.dispatch_table
    )
