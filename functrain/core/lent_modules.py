"""Modules that are lent: copies of the user's module, or others that its factory makes.

A copy has what ``copy.deepcopy`` gives it. Two kinds of objects it cannot tell apart by itself:

* A hook may be a method of an object outside of the module, such as a recorder of features, which
  the loss reads. The copy shares such objects, so that they see the copy's forwards.
* A function shares what it holds (by a closure, a default or a weak reference) with its copy. If
  this is a part of the module, the copy would compute with the original. Then only a factory can
  make another module; without one, lending is refused.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

from torch import Tensor, nn

from functrain.core import held_parts
from functrain.core.module_tensors import places, refuse, refuse_overlapping
from functrain.core.rng import derive, scoped
from functrain.errors import ModelError

Factory = Callable[[], nn.Module]
_FACTORY = "pass a factory instead: functrain.program(lambda: Model(...), ...)"


def checked(module: nn.Module) -> nn.Module:
    """Return a module, if a step can put its own tensors into it."""
    refuse(module)
    _refuse_lazy(module)
    refuse_overlapping(module)
    return module


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
    return checked(module)


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


def copy_module(module: nn.Module, tensors: dict[int, Tensor]) -> nn.Module:
    """Return a copy of a module that has other tensors; by the ids of those that it has.

    Raises:
        ModelError: it cannot be copied, or its copy would compute with parts of the original.
    """
    own = _own_objects(module)
    for where, value, held in held_parts.holders(module):
        if id(held) in own:
            raise ModelError(
                f"{value}, {where}, refers to a part of the module, and so would a copy of it, "
                f"which evaluating(), module() and predict lend; {_FACTORY}"
            )
    memo: dict[int, Any] = {**tensors, **_shared_with_hooks(module, own)}
    # An earlier forward computed these, as of nn.utils.spectral_norm; deepcopy refuses them.
    computed = {key: t for key, t in own.items() if isinstance(t, Tensor) and t.grad_fn is not None}
    memo |= {key: t.detach().clone() for key, t in computed.items() if key not in memo}
    try:
        return copy.deepcopy(module, memo)
    except (RuntimeError, TypeError) as error:  # a lock, say
        raise ModelError(
            f"{type(module).__name__} cannot be copied ({error}); {_FACTORY}"
        ) from error


def _own_objects(module: nn.Module) -> dict[int, Any]:
    """Return all that a module holds in its attributes, except its hooks, by id."""
    found: dict[int, Any] = {id(one): one for one in module.modules()}
    for one in module.modules():
        for name, value in vars(one).items():
            if not name.endswith("hooks"):
                found |= {id(held): held for held in _within(value)}
    return found


def _within(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list | Tensor) or hasattr(value, "__dict__"):
        yield value
    for container, _, held in places([value], set()):
        yield container
        yield held


def _shared_with_hooks(module: nn.Module, own: dict[int, Any]) -> dict[int, Any]:
    """Return the objects that hooks belong to, by id, other than those of the module."""
    found: dict[int, Any] = {}
    for one in module.modules():
        for name, hooks in vars(one).items():
            if name.endswith("hooks") and isinstance(hooks, dict):
                for hook in hooks.values():
                    found |= {id(held): held for held in _objects_of(hook)}
    return {key: held for key, held in found.items() if key not in own}


def _objects_of(hook: Any) -> list[Any]:
    if isinstance(hook, MethodType):
        return [hook.__self__]
    if isinstance(hook, functools.partial):
        return [*_objects_of(hook.func), *hook.args, *hook.keywords.values()]
    return [hook]
