"""Recognize attributes that get the same values in a call regardless of earlier calls.

These are harmless: lookup tables built by the first call, and outputs and auxiliary losses stored
for the caller.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from functrain.testing.conditions import Conditions
from functrain.testing.fake_system import FakeSystem
from functrain.testing.global_state import preserved
from functrain.testing.object_leaves import OF_ALL_MODULES
from functrain.testing.snapshots import Snapshot, changes, snapshot
from functrain.testing.variables import (
    SavedVariable,
    Variable,
    is_data,
    of_caches,
    of_module,
)
from functrain.tree import containers

# Attributes that binding a state to a module changes and restores.
_BOUND = {"training", "_parameters", "_buffers"}


@attrs.frozen(eq=False)
class ModuleStructure:
    """The code in a module: hooks, children, and attributes that are functions or modules."""

    own: dict[str, Any]
    code: dict[str, Any]
    registered: list[tuple[dict[Any, Any], dict[Any, Any]]]

    @classmethod
    def of(cls, module: nn.Module) -> ModuleStructure:
        """Capture the structure of a module."""
        own = vars(module)
        dicts = [own[name] for name in OF_ALL_MODULES - _BOUND if isinstance(own[name], dict)]
        return cls(own, _code(own), [(held, dict(held)) for held in dicts])

    @classmethod
    def of_all(cls, module: nn.Module | None) -> list[ModuleStructure]:
        """Capture the structures of a module and its submodules."""
        return [] if module is None else [cls.of(part) for part in module.modules()]

    def restore(self) -> None:
        """Restore the captured structure."""
        for held, content in self.registered:
            if list(held.items()) != list(content.items()):
                held.clear()
                held.update(content)
        for name in _code(self.own).keys() - self.code.keys():
            del self.own[name]
        self.own.update(self.code)


def _code(own: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes that are code, including callables that every module may have."""
    return {
        name: value
        for name, value in own.items()
        if not is_data(value) or (name in OF_ALL_MODULES and callable(value))
    }


@attrs.frozen(eq=False)
class ModuleAttributes:
    """The attributes of a module except tensors, at one point in time."""

    module: nn.Module | None
    held: dict[str, SavedVariable]
    structure: list[ModuleStructure]

    @classmethod
    def of(cls, module: nn.Module | None) -> ModuleAttributes:
        """Capture the attributes of a module."""
        tried = {name: SavedVariable.by(cell) for name, cell in _cells(module).items()}
        held = {name: each for name, each in tried.items() if each is not None}
        return cls(module, held, ModuleStructure.of_all(module))

    def changed(self) -> dict[str, Snapshot]:
        """Return the values of new and changed attributes."""
        return {
            name: snapshot(cell.read(), name)
            for name, cell in _cells(self.module).items()
            if name not in self.held or self.held[name].differs()
        }

    def restore(self) -> None:
        """Restore the attributes and remove new ones.

        Hooks are removed together with the attribute that records them, so that the next call adds
        them again.
        """
        for structure in self.structure:
            structure.restore()
        for name, cell in _cells(self.module).items():
            if name not in self.held:
                cell.remove()
        for held in self.held.values():
            held.restore()


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


def _cells(module: Any) -> dict[str, Variable]:
    if module is None:
        return {}
    return {cell.name: cell for cell in (*of_module(module), *of_caches(module))}


OTHER_CONDITIONS = Conditions(
    system=FakeSystem(now=2e9 + 0.7, process=4343, seed=1),
    seeds={"torch": 1, "random": 1, "numpy": 1},
)
"""The conditions of the other step."""


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
