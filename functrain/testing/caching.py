"""Attributes that a call fills alike whatever was called before, which is no fault.

Tables that are made at the first call are such, and outputs and auxiliary losses that are kept for
whoever looks at them after the call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from torch import nn

from functrain.testing.another import others
from functrain.testing.cells import OF_ALL_MODULES, Cell, Held, is_data, of_caches, of_module
from functrain.testing.comparing import Snapshot, changes, snapshot
from functrain.testing.surroundings import put_back

# What binding a state to a module changes, and puts back itself.
_BOUND = {"training", "_parameters", "_buffers"}


@attrs.frozen(eq=False)
class Structure:
    """What a module calls: hooks, children, and attributes that are functions or modules.

    Attributes:
        own: the attributes of the module.
        code: those of them that are code.
        registered: its dicts of hooks and children, each with what was in it.
    """

    own: dict[str, Any]
    code: dict[str, Any]
    registered: list[tuple[dict[Any, Any], dict[Any, Any]]]

    @classmethod
    def of(cls, module: nn.Module) -> Structure:
        """The present one."""
        own = vars(module)
        dicts = [own[name] for name in OF_ALL_MODULES - _BOUND if isinstance(own[name], dict)]
        return cls(own, _code(own), [(held, dict(held)) for held in dicts])

    @classmethod
    def of_all(cls, module: nn.Module | None) -> list[Structure]:
        """Those of a module and all in it."""
        return [] if module is None else [cls.of(part) for part in module.modules()]

    def put_back(self) -> None:
        """Leave it as it was."""
        for held, content in self.registered:
            if list(held.items()) != list(content.items()):
                held.clear()
                held.update(content)
        for name in _code(self.own).keys() - self.code.keys():
            del self.own[name]
        self.own.update(self.code)


def _code(own: dict[str, Any]) -> dict[str, Any]:
    """Attributes that every module has, such as what ``compile`` leaves, count as code."""
    return {
        name: value
        for name, value in own.items()
        if not is_data(value) or (name in OF_ALL_MODULES and callable(value))
    }


@attrs.frozen(eq=False)
class Attributes:
    """The attributes of a module, tensors aside, as they were at a time.

    Attributes:
        module: whose; ``None`` has none.
        held: by name.
        structure: of each submodule its hooks and children, and its attributes that are code.
    """

    module: nn.Module | None
    held: dict[str, Held]
    structure: list[Structure]

    @classmethod
    def of(cls, module: nn.Module | None) -> Attributes:
        """The present ones."""
        tried = {name: Held.by(cell) for name, cell in _cells(module).items()}
        held = {name: each for name, each in tried.items() if each is not None}
        return cls(module, held, Structure.of_all(module))

    def changed(self) -> dict[str, Snapshot]:
        """What is by now in those that are new or were changed."""
        return {
            name: snapshot(cell.read(), name)
            for name, cell in _cells(self.module).items()
            if name not in self.held or self.held[name].differs()
        }

    def put_back(self) -> None:
        """Leave them as they were; new ones are gone.

        Hooks go with the attribute that says they are there: the next call adds them again.
        """
        for structure in self.structure:
            structure.put_back()
        for name, cell in _cells(self.module).items():
            if name not in self.held:
                cell.remove()
        for held in self.held.values():
            held.put_back()


def attempted(call: Callable[[Any], object], batch: Any, attributes: Attributes) -> bool:
    """Whether another call can be made: not all batches that are made up will do.

    Args:
        call: is given another batch, and again yet another where that one will not do.
        batch: what they are made from; not changed.
        attributes: left by a call that ended in an error as they were.
    """
    for other in others(batch):
        with put_back():
            try:
                call(other)
            except Exception:  # not hidden: the call with the user's arguments has been made
                attributes.put_back()
                continue
        return True
    return False


def unchanged(attributes: Attributes, first: dict[str, Snapshot]) -> set[str]:
    """The attributes that are as an earlier call left them.

    Args:
        attributes: as they were before any call.
        first: what the earlier call left in those that it changed.
    """
    now = attributes.changed()
    return {name for name, left in first.items() if not changes(left, now.get(name, {}))}


def without(findings: list[str], names: set[str]) -> list[str]:
    """Findings but those of certain attributes.

    Example:
        >>> without(["module.a was changed: 1", "module.ab was changed: 1"], {"module.a"})
        ['module.ab was changed: 1']
    """
    starts = tuple(name + after for name in names for after in (" ", "[", "."))
    return [each for each in findings if not (starts and each.startswith(starts))]


def _cells(module: Any) -> dict[str, Cell]:
    if module is None:
        return {}
    return {cell.name: cell for cell in (*of_module(module), *of_caches(module))}
