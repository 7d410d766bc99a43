"""Modules around other modules: whose names are left out of paths, and which are refused.

A model is the same with and without ``torch.compile``. Its parameters have the same paths, so
states, checkpoints and state dicts of one are those of the other.
"""

from __future__ import annotations

import re

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from functrain.errors import ModelError

WRAPPED = "_orig_mod."  # in the paths of what torch.compile wraps


def plain_paths(module: nn.Module, paths: list[str]) -> dict[str, str]:
    """Return paths without the names that wrappers have for what they wrap.

    Args:
        module: the outermost module.
        paths: dotted paths in it.

    Returns:
        By path, the path that it has without wrappers.
    """
    # From the inside out: to shorten a path changes nothing in front of it.
    found = sorted(_wrappers(module), key=len, reverse=True)
    return {path: _plain(path, found) for path in paths}


def all_paths(module: nn.Module) -> list[str]:
    """Return the paths of all parameters and buffers of a module, as the module has them."""
    return [path for path, _ in (*module.named_parameters(), *module.named_buffers())]


def shown_layers(module: nn.Module) -> dict[str, str]:
    """Return what the modules that have none within them print, by path without wrappers.

    Those that print an address or the values of tensors are left out.
    """
    leaves = {f"{path}.": each for path, each in module.named_modules() if not any(each.children())}
    plain = plain_paths(module, list(leaves))
    shown = {plain[path].rstrip("."): repr(each) for path, each in leaves.items()}
    return {path: text for path, text in shown.items() if not re.search(r" at 0x|tensor\(", text)}


def _wrappers(module: nn.Module) -> list[str]:
    """The paths of what is wrapped, each with a dot at its end."""
    found = []
    for path, one in module.named_modules():
        before = f"{path}." if path else ""
        if isinstance(one, torch._dynamo.OptimizedModule):
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
    """Refuse a module whose tensors a step cannot replace, or whose backward pass does more.

    Raises:
        ModelError: it is, or has in it, a module of ``torch.jit`` or a ``DistributedDataParallel``.
    """
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
