"""Recognize attributes that get the same values in a call regardless of earlier calls.

These are harmless: lookup tables built by the first call, and outputs and auxiliary losses stored
for the caller.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pickle import PicklingError
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from functrain.testing.global_state import preserved
from functrain.testing.object_leaves import OF_ALL_MODULES, is_compilers
from functrain.testing.snapshots import Snapshot, changes, snapshot
from functrain.tree import containers

# Attributes that binding a state to a module changes and restores.
_BOUND = {"training", "_parameters", "_buffers"}
_NOT_DATA = (ModuleType, type, nn.Module, FunctionType, MethodType, BuiltinFunctionType)


@attrs.frozen(eq=False)
class ModuleAttributes:
    """The attributes of a module except parameters and persistent buffers, at one point in time."""

    module: nn.Module | None
    held: dict[str, tuple[dict[str, Any], str, Any]]
    registries: list[tuple[dict[str, Any], dict[str, Any]]]

    @classmethod
    def of(cls, module: nn.Module | None) -> ModuleAttributes:
        """Capture the attributes of a module, its hooks and its children."""
        places = _places(module)
        held = {name: (scope, key, _copied(scope[key])) for name, scope, key in places}
        parts = [] if module is None else module.modules()
        own = [vars(part)[name] for part in parts for name in OF_ALL_MODULES - _BOUND]
        return cls(module, held, [(each, dict(each)) for each in own if isinstance(each, dict)])

    def changed(self) -> dict[str, Snapshot]:
        """Return the values of new and changed attributes."""
        now = {name: snapshot(scope[key], name) for name, scope, key in _places(self.module)}
        before = {name: snapshot(content, name) for name, (_, _, content) in self.held.items()}
        return {
            name: value
            for name, value in now.items()
            if name not in before or changes(before[name], value)
        }

    def restore(self) -> None:
        """Remove new attributes, and set changed ones to copies of what they held.

        Hooks are removed together with the attribute that records them, so that the next call adds
        them again.
        """
        for registry, content in self.registries:
            if list(registry.items()) != list(content.items()):
                registry.clear()
                registry.update(content)
        for name, scope, key in list(_places(self.module)):
            if name not in self.held:
                del scope[key]
        for scope, key, content in self.held.values():
            if key not in scope or changes(snapshot(content, key), snapshot(scope[key], key)):
                scope[key] = _copied(content)


def _places(module: nn.Module | None) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the attributes and non-persistent buffers of all parts: name, scope and key."""
    for path, part in () if module is None else module.named_modules():
        name, own, buffers = f"module.{path}" if path else "module", vars(part), part._buffers
        yield from ((f"{name}.{key}", own, key) for key in own if key not in OF_ALL_MODULES)
        unsaved = part._non_persistent_buffers_set & buffers.keys()
        yield from ((f"{name}.{key}", buffers, key) for key in unsaved)


def _copied(value: Any) -> Any:
    """Return a deep copy of data; code and what cannot be copied as it is."""
    if isinstance(value, _NOT_DATA) or is_compilers(value):
        return value
    if isinstance(value, torch.Generator):
        return value.clone_state()
    try:
        return copy.deepcopy(value)
    except (TypeError, RuntimeError, NotImplementedError, ValueError, copy.Error, PicklingError):
        return value


def try_other_batches(
    call: Callable[[Any], object], batch: Any, attributes: ModuleAttributes
) -> bool:
    """Return whether a call succeeds with another batch; not every varied batch is valid.

    The attributes are restored after a call that raises.
    """
    for other in other_batches(batch):
        with preserved():
            try:
                call(other)
            except Exception:  # not hidden: the call with the user's own batch has succeeded
                attributes.restore()
                continue
        return True
    return False


def unchanged(attributes: ModuleAttributes, first: dict[str, Snapshot]) -> set[str]:
    """Return the attributes that have the values an earlier call gave them."""
    now = attributes.changed()
    return {name for name, left in first.items() if not changes(left, now.get(name, {}))}


def without(findings: list[str], names: set[str]) -> list[str]:
    """Remove the findings about certain attributes."""
    starts = tuple(name + after for name in names for after in (" ", "[", "."))
    return [each for each in findings if not (starts and each.startswith(starts))]


def every_second_sample(batch: Any) -> Any:
    """Return a batch of the same shape with every second sample, each twice.

    Its means differ, and it contains only samples that occur in the data.
    """
    return _mapped(_every_other, batch)


def other_batches(batch: Any) -> Iterator[Any]:
    """Yield variations of a batch to try one after the other, from least to most similar.

    Not every batch can lose samples: if one sample holds all the images, it has to stay.

    Example:
        >>> [other.tolist() for other in other_batches(torch.arange(4))]
        [[0, 0, 2, 2], [3, 0, 1, 2], [0, 1, 2, 3]]
    """
    yield every_second_sample(batch)
    yield _mapped(_rolled, batch)
    yield copy.deepcopy(batch)


def _rolled(leaf: Any) -> Any:
    return leaf.roll(1, 0) if isinstance(leaf, Tensor) and leaf.dim() else leaf


def _every_other(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor) or not leaf.dim():
        return leaf
    return leaf[torch.arange(len(leaf), device=leaf.device) // 2 * 2]


def _mapped(function: Callable[[Any], Any], batch: Any) -> Any:
    """Map like ``tree.map``, but also inside objects of any class."""
    if isinstance(batch, Tensor) or not containers.is_container(batch):
        return function(batch)
    parts = [_mapped(function, child) for _, child in containers.children(batch)]
    return containers.rebuild(batch, parts)
