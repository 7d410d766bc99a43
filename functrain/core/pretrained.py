"""Pretrained values instead of initial ones, and advice where they do not fit."""

from __future__ import annotations

import contextlib
import copy
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeAlias

from torch import Tensor, nn

from functrain import tree
from functrain.core.buffers import may_become
from functrain.core.model import FunctionalModule, functionalize
from functrain.core.module_tensors import plain_paths
from functrain.core.optimizer import NamedParams, means
from functrain.core.state import Tensors, TrainState
from functrain.errors import ConfigurationError, ParameterMismatchError
from functrain.errors.nearest import nearest
from functrain.tree.nodes import matches

# Modules around a module, each with the name under which it holds the one inside.
_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


# Names to load, and how names that are given differ from those of the model.
Patterns: TypeAlias = str | Sequence[str] | Callable[[str, Tensor], bool]
Rename: TypeAlias = Mapping[str, str] | Callable[[str], str]


def read(params: Any) -> Any:
    """Return pretrained values; those of a path are read from there."""
    if not isinstance(params, str | os.PathLike):
        return params
    # By name, because the step is imported without any room that reads files.
    return import_module("functrain.checkpoint").weights(params)


def chosen(
    model: FunctionalModule,
    into: Tensors,
    values: Any,
    only: Patterns | None,
    rename: Rename | None,
) -> Any:
    """Return the values to load under the model's names: all, or some and the model's own."""
    if only is None and rename is None:
        return values
    _check(values, into.keys())
    values = values if rename is None else _renamed(values, rename)
    if only is None:
        return values
    named = NamedParams(into, model.named_params.others)
    needed = {path: own for path, own in into.items() if means(only, path, named)}
    _check_patterns(only, needed, named)
    given = {
        name: value
        for name, value in values.items()
        if matches(only, name, value) or model.aliases.get(name, name) in needed
    }
    kept = {path: own for path, own in into.items() if path not in needed and path in model.params}
    return {**kept, **given}


def _renamed(values: Tensors, rename: Rename) -> Tensors:
    function = rename if callable(rename) else _by_beginnings(rename, values)
    found: Tensors = {}
    for name, value in values.items():
        new = function(name)
        if new in found:
            raise ConfigurationError(f"rename: two of the params would be called {new!r}")
        found[new] = value
    return found


def _by_beginnings(rename: Mapping[str, str], names: Collection[str]) -> Callable[[str], str]:
    for begins in rename:
        if not any(name.startswith(begins) for name in names):
            raise ConfigurationError(
                f"rename: expected the beginnings of names in params, got {begins!r}, with which "
                f"none begins{nearest(begins, names)}; they are {list(names)[:8]}"
            )
    longest = sorted(rename, key=len, reverse=True)

    def renamed(name: str) -> str:
        begins = next((one for one in longest if name.startswith(one)), None)
        return name if begins is None else rename[begins] + name[len(begins) :]

    return renamed


def _check_patterns(only: Patterns, needed: Tensors, into: NamedParams) -> None:
    each: Sequence[Any] = [only] if isinstance(only, str) or callable(only) else only
    for pattern in each:
        if not any(means(pattern, path, into) for path in needed):
            raise ConfigurationError(
                f"only: {pattern!r} matches none of the {len(into)} names of the model"
                f"{nearest(pattern, into) if isinstance(pattern, str) else ''}"
            )


def load(model: FunctionalModule, into: Tensors, values: dict[str, Tensor]) -> Tensors:
    """Replace initial parameters by pretrained ones.

    The second names of tied tensors are accepted too, and buffers may be left out. Dtypes stay
    those of the model, as ``load_state_dict`` does it. A buffer that a forward gave its shape keeps
    it.
    """
    names = into.keys() | model.aliases.keys()
    _check(values, names)
    plain = plain_paths(model.module, list(values))  # those of a wrapped model have its names
    given: Tensors = {}
    contradictions = []
    for path, value in values.items():
        own = model.aliases.get(plain[path], plain[path])
        first = given.setdefault(own, value)
        if first is not value and not tree.equal(first, value):
            contradictions.append(
                f"{path} is another name of a tensor that is given with other values, too; leave "
                "out one of them, or make a model in which they are not tied"
            )
    buffers = [path for path in given if path in into and path not in model.params]
    other = {path for path in buffers if given[path].shape != into[path].shape}
    resized = _resized_by_module(model, values) & other if other else set[str]()
    known = {path: given[path] if path in resized else own for path, own in into.items()}
    problems = [*contradictions, *mismatches(given, known, model.params)]
    if problems:
        hint = prefix_hint(values, names)
        raise ParameterMismatchError(f"the given params do not fit the model{hint}", problems)
    return {
        path: _converted(given[path].detach(), tensor) if path in given else tensor
        for path, tensor in into.items()
    }


def _resized_by_module(model: FunctionalModule, values: Tensors) -> set[str]:
    """Return the buffers that have the shapes given after the module's own ``load_state_dict``."""
    own = model.factory
    module = copy.deepcopy(model.module) if own is None else functionalize(own).module
    with contextlib.suppress(RuntimeError):  # raised at the end, for all that it did not take
        module.load_state_dict(values, strict=False)
    loaded = dict(module.named_buffers(remove_duplicate=False))
    shared = loaded.keys() & values.keys()
    return {
        model.aliases.get(path, path) for path in shared if loaded[path].shape == values[path].shape
    }


def _converted(value: Tensor, into: Tensor) -> Tensor:
    # The dtype of an empty buffer, which stands for what a forward makes of it, says nothing.
    placeholder = into.numel() == 0 and value.numel() > 0
    if into.is_meta:  # a model made without values takes those given, wherever they are
        return value.to(into.dtype).clone()
    return value.to(into.device if placeholder else into).clone()


def mismatches(given: Tensors, known: Tensors, needed: Collection[str]) -> list[str]:
    """Describe why tensors do not fit a model.

    Those not needed are buffers, which may have taken their shape in a forward.
    """
    problems = [f"unexpected {path!r}{nearest(path, known)}" for path in given if path not in known]
    problems += [f"missing {path!r}" for path in needed if path not in given]
    problems += [
        f"{path!r} has shape {list(given[path].shape)}, expected {list(tensor.shape)}"
        for path, tensor in known.items()
        if path in given and given[path].shape != tensor.shape
        if path in needed or not may_become(tensor, given[path].shape)
    ]
    return problems


def state_dicts(values: Mapping[Any, Any]) -> dict[str, str]:
    """Return which entries of a checkpoint hold weights, each with the code to get them.

    Example:
        >>> import torch
        >>> state_dicts({"model": {"weight": torch.ones(2)}, "epoch": 3})
        {'model': "checkpoint['model']"}
    """
    found = {}
    for name, value in values.items():
        if isinstance(value, nn.Module):
            found[name] = f"checkpoint[{name!r}].state_dict()"
        elif isinstance(value, Mapping) and any(isinstance(v, Tensor) for v in value.values()):
            found[name] = f"checkpoint[{name!r}]"
    return found


def prefix_hint(given: Collection[str], known: Collection[str]) -> str:
    """Say how the names that are given differ from those of the model, where all do alike.

    Example:
        >>> prefix_hint(["module.weight", "module.bias"], ["weight", "bias"])
        "; the names begin with 'module.': take it off first, as with
        torch.nn.modules.utils.consume_prefix_in_state_dict_if_present(params, 'module.')"
        >>> prefix_hint(["weight"], ["weight", "bias"])
        ''
    """
    prefix = _prefix(given, known)
    if prefix:
        return (
            f"; the names begin with {prefix!r}: take it off first, as with "
            f"torch.nn.modules.utils.consume_prefix_in_state_dict_if_present(params, {prefix!r})"
        )
    prefix = _prefix(known, given)
    if prefix:
        renamed = f"{{{prefix!r} + name: value for name, value in params.items()}}"
        return f"; the model's names begin with {prefix!r}: put it before those given: {renamed}"
    for wrapper in _WRAPPERS:
        names = {name.replace(wrapper, "") for name in given}
        if names != set(given) and names >= set(known):
            renamed = f"{{name.replace({wrapper!r}, ''): value for name, value in params.items()}}"
            return f"; {wrapper!r} is in the names: take it out first: {renamed}"
    return ""


def _check(given: Any, known: Collection[str]) -> None:
    """Refuse a path, a module, a state, a nested checkpoint and the like."""
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"params: expected a dict of tensors by name, {_instead(given)}")
    for name in given:
        if not isinstance(name, str):
            raise ConfigurationError(
                f"params: expected a dict of tensors by name, got one with the key {name!r}; "
                "program.init(params=module.state_dict()) is one"
            )
    others = {name: value for name, value in given.items() if not isinstance(value, Tensor)}
    nested = state_dicts(others)
    if nested:
        raise ConfigurationError(
            "params: expected a dict of tensors by name, got one with dicts or modules in it: "
            f"{', '.join(map(repr, nested))}. Give the weights alone: "
            f"program.init(params={_best(nested)})"
        )
    for name in others.keys() & set(known):
        raise ConfigurationError(
            f"params[{name!r}]: expected a tensor, got a {type(given[name]).__name__}; "
            "torch.as_tensor makes one of an array or a list"
        )
    meta = [name for name, value in given.items() if isinstance(value, Tensor) and value.is_meta]
    if meta:
        raise ConfigurationError(
            f"params[{meta[0]!r}] has no values: it is on the meta device, as {len(meta)} of "
            f"{len(given)} are. Load them first: module.load_state_dict(values, assign=True)"
        )


def _prefix(longer: Collection[str], shorter: Collection[str]) -> str:
    """Return the prefix by which most names of one side become names of the other."""
    names, found = set(shorter), Counter[str]()
    for name in longer:
        ends = [0, *(index + 1 for index, letter in enumerate(name) if letter == ".")]
        found[next((name[:end] for end in ends if name[end:] in names), "")] += 1
    prefix, count = found.most_common(1)[0] if found else ("", 0)
    return prefix if 2 * count > len(longer) else ""


def _instead(given: object) -> str:
    if isinstance(given, nn.Module):
        return "got a module. Give its values: program.init(params=module.state_dict())"
    if isinstance(given, TrainState):
        return (
            "got a TrainState. Give its weights, with the program that made it as one: "
            "with one.evaluating(state) as model: program.init(params=model.state_dict())"
        )
    return f"got a {type(given).__name__}; program.init(params=module.state_dict()) is one"


def _best(nested: Mapping[str, str]) -> str:
    """Return the code for the weights; a state has its buffers beside the parameters."""
    if nested.keys() >= {"params", "buffers"}:
        return "{**checkpoint['params'], **checkpoint['buffers']}"
    likely = ("model", "state_dict", "model_state_dict", "params", "module", "net")
    name = next((name for name in likely if name in nested), next(iter(nested)))
    return nested[name]
