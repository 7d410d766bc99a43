"""Where a module holds its tensors, and by which paths they are known.

A tensor must be bound everywhere a forward may read it. Tuples, and functions that hold on to the
module they were made in, make that impossible. Such a module is refused: its forward would
silently go on to read the tensors it was made with (see ``held_parts.py``).

A model is the same with and without ``torch.compile``: its parameters have the same paths, so
states, checkpoints and state dicts of one are those of the other.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from functrain.errors import ModelError
from functrain.tree.overlapping import overlapping

WRAPPED = "_orig_mod."  # in the paths of what torch.compile wraps

# A mutable container of the module that holds a tensor, and the key it is held under.
Place = tuple[Any, Any]


def tensor_places(module: nn.Module, paths: dict[int, str]) -> dict[str, list[Place]]:
    """Return every place of each tensor in ``paths``, by its id; that of ``nn.Module`` first."""
    found: dict[str, list[Place]] = {path: [] for path in paths.values()}
    submodules = list(module.modules())
    seen = {id(vars(m)) for m in submodules}
    roots = [tensors for m in submodules for tensors in (m._parameters, m._buffers)]
    for container in [*roots, *map(vars, submodules)]:
        for place, key, value in places(container, seen):
            if isinstance(value, Tensor) and id(value) in paths:
                found[paths[id(value)]].append((place, key))
            elif isinstance(value, tuple):
                _refuse_in_tuple(value, key, paths)
    return found


def lists(module: nn.Module, paths: dict[int, str]) -> list[tuple[dict[str, Any], str, Any]]:
    """Return attributes that are lists with some of the tensors, with the module's ``__dict__``."""
    return [
        (vars(submodule), name, value)
        for submodule in module.modules()
        for name, value in vars(submodule).items()
        if isinstance(value, list) and any(id(part) in paths for part in value)
    ]


def places(container: Any, seen: set[int]) -> Iterator[tuple[Any, Any, Any]]:
    """Yield (container, key, value) of everything in a dict, list or tuple, at any depth.

    The attributes of an object are the values of its ``__dict__``.
    """
    seen.add(id(container))
    waiting = [container]
    while waiting:
        container = waiting.pop()
        pairs = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in list(pairs):
            inside = _inside(value)
            if inside is not None and id(inside) not in seen:
                seen.add(id(inside))
                waiting.append(inside)
            if not isinstance(value, dict | list):
                yield container, key, value


def _inside(value: Any) -> Any:
    """Return the container of what is in a value, if a tensor may be in it."""
    if isinstance(value, dict | list | tuple):
        return value
    if isinstance(value, Tensor | type | FunctionType | ModuleType):
        return None
    return vars(value) if type(value).__dictoffset__ else None


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


def plain_paths(module: nn.Module, paths: list[str]) -> dict[str, str]:
    """Return for each path the one without the names that wrappers add."""
    # From the inside out: to shorten a path changes nothing in front of it.
    found = sorted(_wrappers(module), key=len, reverse=True)
    return {path: _plain(path, found) for path in paths}


def all_paths(module: nn.Module) -> list[str]:
    """Return the paths of all parameters and buffers of a module, as the module has them."""
    return [path for path, _ in (*module.named_parameters(), *module.named_buffers())]


def shown_layers(module: nn.Module) -> dict[str, str]:
    """Return the ``repr`` of each module without submodules, by path without wrappers.

    Modules that print an address or the values of tensors are left out.
    """
    leaves = {f"{path}.": each for path, each in module.named_modules() if not any(each.children())}
    plain = plain_paths(module, list(leaves))
    shown = {plain[path].rstrip("."): repr(each) for path, each in leaves.items()}
    return {path: text for path, text in shown.items() if not re.search(r" at 0x|tensor\(", text)}


def _wrappers(module: nn.Module) -> list[str]:
    """Return the paths of wrapped modules, each with a dot at its end."""
    # Importing it takes over a second. Where it is not loaded, no module was compiled.
    dynamo = sys.modules.get("torch._dynamo")
    found = []
    for path, one in module.named_modules():
        before = f"{path}." if path else ""
        if dynamo is not None and isinstance(one, dynamo.OptimizedModule):
            found.append(before + WRAPPED)
        elif isinstance(one, DataParallel):
            found.append(f"{before}module.")
    return found


def _plain(path: str, wrappers: list[str]) -> str:
    for wrapper in wrappers:
        if path.startswith(wrapper):
            outside = wrapper[: wrapper.rindex(".", 0, -1) + 1] if "." in wrapper[:-1] else ""
            path = outside + path[len(wrapper) :]
    return path


def refuse(module: nn.Module) -> None:
    """Refuse a module whose tensors a step cannot replace, or whose backward pass does more."""
    _refuse_hooks(module)
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


def refuse_overlapping(module: nn.Module) -> None:
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


def _has_memory(tensor: Tensor) -> bool:
    try:
        return tensor.layout is torch.strided and tensor.numel() > 0 and tensor.data_ptr() != 0
    except (NotImplementedError, RuntimeError):  # a fake tensor, or a subclass made of others
        return False


def _refuse_hooks(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if parameter._post_accumulate_grad_hooks:
            raise ModelError(
                f"parameter {name!r} has a hook of register_post_accumulate_grad_hook, which is "
                "called when .grad is written, and a step writes none. To change a gradient use "
                "parameter.register_hook; what else the hook does belongs in the optimizer"
            )
