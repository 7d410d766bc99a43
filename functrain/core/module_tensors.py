"""Where a module holds its tensors, and by which paths they are known.

A step puts its own tensors into every place from which a forward may read one: dicts and lists,
and the attributes of objects, at any depth. Tuples and functions cannot be given others; a module
that holds a tensor there is refused, as its forward would go on to read the one it was made with.

A model is the same with and without ``torch.compile``: its parameters have the same paths, so
states, checkpoints and state dicts of one are those of the other.
"""

from __future__ import annotations

import functools
import re
import sys
import weakref
from collections.abc import Iterator, Mapping
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import attrs
from torch import Tensor, nn
from torch.nn.parallel import DataParallel

from functrain.errors import ModelError, UntrainedParameterWarning
from functrain.errors.base import warn


class Place(NamedTuple):
    """A mutable container of a module that holds the tensor of a path, and its key."""

    path: str
    container: Any
    key: Any


@attrs.frozen
class Places:
    """Places whose values are read and set at once."""

    containers: list[Any]
    keys: list[Any]

    def __add__(self, other: Places) -> Places:
        return Places(self.containers + other.containers, self.keys + other.keys)

    def get(self) -> list[Any]:
        """Return the values that are there now."""
        return [one[key] for one, key in zip(self.containers, self.keys, strict=True)]

    def put(self, values: list[Any]) -> None:
        """Set values, at as many of the places."""
        for one, key, value in zip(self.containers, self.keys, values, strict=False):
            one[key] = value


def tensor_places(module: nn.Module, paths: dict[int, str]) -> list[Place]:
    """Return every place of each tensor in ``paths``, by its id; that of ``nn.Module`` first."""
    found = []
    submodules = list(module.modules())
    seen = {id(vars(m)) for m in submodules}
    roots = [tensors for m in submodules for tensors in (m._parameters, m._buffers)]
    for root in [*roots, *map(vars, submodules)]:
        for container, key, value in entries(root, seen):
            if path := paths.get(id(value)):
                if isinstance(container, tuple):
                    raise _unreachable("a tuple", path, "Make it a list")
                found.append(Place(path, container, key))
            for held in reached(kept_by(value)):
                if path := paths.get(id(held)):
                    name = getattr(value, "__qualname__", type(value).__name__)
                    remedy = "Let it hold the module, and read the attribute when it is called"
                    raise _unreachable(f"{name} at {key!r}", path, remedy)
    return found


def _unreachable(what: str, path: str, remedy: str) -> ModelError:
    return ModelError(
        f"{what} in the model holds on to {path!r}; it cannot be given other tensors for a step, "
        f"so the forward would read the ones it began with. {remedy}"
    )


def lists(module: nn.Module, paths: dict[int, str]) -> Places:
    """Return the places of attributes that are lists with some of the tensors."""
    found = [
        (vars(submodule), name)
        for submodule in module.modules()
        for name, value in vars(submodule).items()
        if isinstance(value, list) and any(id(part) in paths for part in value)
    ]
    return Places([own for own, _ in found], [name for _, name in found])


def entries(container: Any, seen: set[int]) -> Iterator[tuple[Any, Any, Any]]:
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
            yield container, key, value


def _inside(value: Any) -> Any:
    """Return the container of what is in a value, if a tensor may be in it."""
    if isinstance(value, dict | list | tuple):
        return value
    if isinstance(value, Tensor | type | FunctionType | ModuleType):
        return None
    return vars(value) if type(value).__dictoffset__ else None


def kept_by(value: Any) -> list[Any]:
    """Return what a function or weak reference holds on to, and a copy of it too."""
    if isinstance(value, weakref.ReferenceType):
        return [target] if isinstance(target := value(), nn.Module) else []
    if isinstance(value, BuiltinMethodType):
        return [value.__self__]
    if isinstance(value, functools.partial):
        return [value.func]
    if not isinstance(value, FunctionType):
        return []
    defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    return defaults + [one for cell in value.__closure__ or () for one in _content(cell)]


def reached(values: list[Any]) -> Iterator[Any]:
    """Yield values, and what functions, methods, dicts, lists and tuples among them lead to."""
    waiting, seen = [*values], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += kept_by(one)
        if isinstance(one, MethodType):
            waiting.append(one.__self__)
        elif isinstance(one, functools.partial):
            waiting += [*one.args, *one.keywords.values()]
        elif isinstance(one, dict | list | tuple):
            waiting += one.values() if isinstance(one, dict) else one


def _content(cell: Any) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # not filled yet
        return []


def plain_paths(module: nn.Module, paths: list[str]) -> dict[str, str]:
    """Return for each path the one without the names that wrappers add."""
    wrappers, found = _wrappers(module)[::-1], {}  # from the inside out
    for given in paths:
        path = given
        for wrapped, outside in wrappers:
            if path.startswith(wrapped):
                path = outside + path.removeprefix(wrapped)
        found[given] = path
    return found


def all_paths(module: nn.Module) -> list[str]:
    """Return the paths of all parameters and buffers of a module, as the module has them."""
    return [path for path, _ in (*module.named_parameters(), *module.named_buffers())]


def aliases(module: nn.Module, paths: dict[int, str]) -> dict[str, str]:
    """Return the other names of tied tensors, each with the path that it stands for."""
    parameters = module.named_parameters(remove_duplicate=False)
    named = [*parameters, *module.named_buffers(remove_duplicate=False)]
    plain = plain_paths(module, [name for name, _ in named])
    pairs = [(plain[name], paths[id(tensor)]) for name, tensor in named]
    return {name: path for name, path in pairs if path != name}


def shown_layers(module: nn.Module) -> dict[str, str]:
    """Return the ``repr`` of each module without submodules, by path without wrappers.

    Modules that print an address or the values of tensors are left out.
    """
    leaves = {f"{path}.": each for path, each in module.named_modules() if not any(each.children())}
    plain = plain_paths(module, list(leaves))
    shown = {plain[path].rstrip("."): repr(each) for path, each in leaves.items()}
    return {path: text for path, text in shown.items() if not re.search(r" at 0x|tensor\(", text)}


def _wrappers(module: nn.Module) -> list[tuple[str, str]]:
    """Return how the paths in each wrapper begin, and how they would without it."""
    # Importing it takes over a second. Where it is not loaded, no module was compiled.
    dynamo = sys.modules.get("torch._dynamo")
    found = []
    for path, one in module.named_modules():
        outside = f"{path}." if path else ""
        if dynamo is not None and isinstance(one, dynamo.OptimizedModule):
            found.append((f"{outside}_orig_mod.", outside))
        elif isinstance(one, DataParallel):
            found.append((f"{outside}module.", outside))
    return found


class OutsideParameters:
    """Parameters outside of the model on which a loss depends, and which no step will train.

    A criterion may have some (class centers, a temperature). A program trains those of its model,
    which are bound as tensors. Its first loss is searched for others.
    """

    searched = False

    def warn_of(self, loss: Tensor, own: Mapping[str, Tensor]) -> None:
        """Warn of trainable parameters in the graph of a loss besides a model's own."""
        self.searched = True
        known = set(map(id, own.values()))
        found = [one for one in _parameters_below(loss) if id(one) not in known]
        shapes = [list(parameter.shape) for parameter in found]
        if shapes:
            warn(
                f"the loss depends on {len(shapes)} trainable parameters outside of the model, of "
                f"the shapes {shapes[:8]}, which no step trains. To train them, make them a part "
                "of the model, as in ModuleDict({'net': net, 'criterion': criterion}); if they "
                "are constants, say so: module.requires_grad_(False)",
                UntrainedParameterWarning,
            )


def _parameters_below(loss: Tensor) -> list[nn.Parameter]:
    """Return the parameters in the graph of a loss, in an order that the graph alone decides."""
    pending, seen, found = [loss.grad_fn], {None, loss.grad_fn}, []
    while pending:
        node = pending.pop()
        variable = getattr(node, "variable", None)
        if isinstance(variable, nn.Parameter):
            found.append(variable)
        for below, _ in getattr(node, "next_functions", ()):
            if below not in seen:
                seen.add(below)
                pending.append(below)
    return found
