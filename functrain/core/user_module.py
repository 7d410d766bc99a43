"""The module that a user gives, or that a factory makes: what is refused, and copies of it."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from itertools import chain
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from functrain.core.module_tensors import entries, kept_by, reached
from functrain.core.rng import derive, scoped
from functrain.errors import ModelError
from functrain.tree.overlapping import overlapping

Factory = Callable[[], nn.Module]
_FACTORY = "pass a factory instead: functrain.program(lambda: Model(...), ...)"


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
    return module


def _needed(factory: Factory) -> list[str]:
    """Return the parameters of a factory that have no default."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # some builtins have no signature
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in optional]


def refuse(module: nn.Module) -> None:
    """Refuse a module whose tensors a step cannot replace, or whose backward pass does more."""
    for path, one in module.named_modules():
        where = f"{path!r} of the model" if path else "the model"
        if isinstance(one, torch.jit.ScriptModule):
            raise ModelError(
                f"{where} is a torch.jit module, which keeps its parameters where a step cannot "
                "put others. Give functrain the nn.Module that it was made from, and script the "
                "trained one; for speed there is functrain.compiled(program)"
            )
        if isinstance(one, DistributedDataParallel):
            raise ModelError(
                f"{where} is a DistributedDataParallel, which averages gradients only in "
                "loss.backward(), and a step does not call it. Give functrain the module inside, "
                "model.module"
            )
    for path, parameter in module.named_parameters():
        if parameter._post_accumulate_grad_hooks:
            raise ModelError(
                f"parameter {path!r} has a hook of register_post_accumulate_grad_hook, which is "
                "called when .grad is written, and a step writes none. To change a gradient use "
                "parameter.register_hook; what else the hook does belongs in the optimizer"
            )
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ModelError(
                f"parameter {path!r} has no shape yet (a lazy module). Run one forward pass "
                "through the module before making a program of it."
            )
    _refuse_overlapping(module)
    _refuse_views(module)


def _refuse_overlapping(module: nn.Module) -> None:
    """Refuse tensors that share memory and are not one, which the tensors of a state do not."""
    named = [*module.named_parameters(), *module.named_buffers()]
    there = [(path, tensor) for path, tensor in named if _has_memory(tensor)]
    if pair := overlapping([tensor for _, tensor in there]):
        one, two = (there[index][0] for index in pair)
        raise ModelError(
            f"{one!r} and {two!r} of the model share memory and are two tensors, which a step "
            "would separate, so that each changes alone. Assign the same object at both places "
            "(b.weight = a.weight) to share it, or clone one (b.weight = "
            "nn.Parameter(b.weight.detach().clone()); b.buffer = b.buffer.clone())"
        )


def _refuse_views(module: nn.Module) -> None:
    """Refuse attributes in the memory of parameters or buffers: steps bind others in their place.

    A hook before the forward computes its attribute again, as that of ``spectral_norm`` does.
    """
    bound = {id(tensor): path for path, tensor in module.named_parameters(remove_duplicate=False)}
    bound |= {id(tensor): path for path, tensor in module.named_buffers(remove_duplicate=False)}
    tensors = [*module.parameters(), *module.buffers()]
    by_memory: dict[int, list[Tensor]] = {}
    for tensor in filter(_has_memory, tensors):
        by_memory.setdefault(tensor.untyped_storage().data_ptr(), []).append(tensor)
    parts = [one for one in module.modules() if not one._forward_pre_hooks]
    seen = set(map(id, map(vars, module.modules())))
    for _, key, value in chain(*(entries(vars(one), seen) for one in parts)):
        if not isinstance(value, Tensor) or id(value) in bound or not _has_memory(value):
            continue
        for tensor in by_memory.get(value.untyped_storage().data_ptr(), ()):
            if overlapping([tensor, value]):
                raise ModelError(
                    f"the attribute {key!r} of the model is a view of {bound[id(tensor)]!r}, which "
                    "would keep the values that this has now. Make it a property, compute it in "
                    "the forward, or clone it if it is to stay as it is"
                )


def _has_memory(tensor: Tensor) -> bool:
    try:
        return tensor.layout is torch.strided and tensor.numel() > 0 and tensor.data_ptr() != 0
    except (NotImplementedError, RuntimeError):  # a fake tensor, or a subclass made of others
        return False


def copy_module(module: nn.Module, tensors: dict[int, Tensor]) -> nn.Module:
    """Return a copy of a module that has other tensors, by the ids of those that it has.

    A hook may belong to an object outside of the module, such as a recorder of features that the
    loss reads: the copy shares it. A function shares what it holds with its copy. If this is a part
    of the module, the copy would compute with the original, and only a factory can help.

    Raises:
        ModelError: it cannot be copied, or its copy would compute with parts of the original.
    """
    modules = dict(module.named_modules())
    attributes = [pair for one in modules.values() for pair in vars(one).items()]
    tables = [one for name, one in attributes if name.endswith("hooks") and isinstance(one, dict)]
    hooks = [hook for table in tables for hook in table.values()]
    seen = {*map(id, map(vars, modules.values())), *map(id, tables)}
    found = [
        (path, key, value)
        for path, one in modules.items()
        for _, key, value in entries(vars(one), seen)
    ]
    own = {id(one): one for one in (module, *(one for *_, one in found)) if _is_mutable(one)}
    for path, key, one in [*found, *(("", "hooks", hook) for hook in hooks)]:
        if any(id(held) in own for held in reached(kept_by(one))):
            raise ModelError(
                f"{key!r} of {path or type(module).__name__!r} refers to a part of the module, and "
                "so would a copy of it, which evaluating(), module() and predict lend; "
                f"{_FACTORY}"
            )
    # An earlier forward computed these, as of nn.utils.spectral_norm; deepcopy refuses them.
    computed = [one for one in own.values() if isinstance(one, Tensor) and one.grad_fn is not None]
    shared = [one for one in reached(hooks) if not isinstance(one, MethodType | functools.partial)]
    memo: dict[int, Any] = {id(one): one.detach().clone() for one in computed}
    memo |= {id(one): one for one in shared if id(one) not in own} | tensors
    try:
        return copy.deepcopy(module, memo)
    except (RuntimeError, TypeError) as error:  # a lock, say
        raise ModelError(
            f"{type(module).__name__} cannot be copied ({error}); {_FACTORY}"
        ) from error


def _is_mutable(value: Any) -> bool:
    """Return whether a copy of a module has a copy of this."""
    if isinstance(value, type | FunctionType | BuiltinMethodType | ModuleType | functools.partial):
        return False
    return isinstance(value, Tensor | dict | list | set) or bool(type(value).__dictoffset__)
