"""Recognize attributes that get the same values in a call regardless of earlier calls.

These are harmless: lookup tables built by the first call, and outputs and auxiliary losses stored
for the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from torch import nn

from functrain.testing.global_state import preserved
from functrain.testing.object_leaves import OF_ALL_MODULES
from functrain.testing.other_steps import other_batches
from functrain.testing.snapshots import Snapshot, changes, snapshot
from functrain.testing.variables import (
    SavedVariable,
    Variable,
    is_data,
    of_caches,
    of_module,
)

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
