"""Attributes that a call fills alike whatever was called before, which is no fault.

Tables that are made at the first call are such, and outputs and auxiliary losses that are kept for
whoever looks at them after the call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from torch import nn

from functrain.testing.cells import Cell, Held, of_module
from functrain.testing.comparing import Snapshot, changes, snapshot
from functrain.testing.surroundings import put_back


@attrs.frozen(eq=False)
class Attributes:
    """The attributes of a module, tensors aside, as they were at a time.

    Attributes:
        module: whose; ``None`` has none.
        held: by name.
    """

    module: nn.Module | None
    held: dict[str, Held]

    @classmethod
    def of(cls, module: nn.Module | None) -> Attributes:
        """The present ones."""
        tried = {name: Held.by(cell) for name, cell in _cells(module).items()}
        return cls(module, {name: each for name, each in tried.items() if each is not None})

    def changed(self) -> dict[str, Snapshot]:
        """What is by now in those that are new or were changed."""
        return {
            name: snapshot(cell.read(), name)
            for name, cell in _cells(self.module).items()
            if name not in self.held or self.held[name].differs()
        }

    def put_back(self) -> None:
        """Leave them as they were; new ones are gone."""
        for name, cell in _cells(self.module).items():
            if name not in self.held:
                cell.remove()
        for held in self.held.values():
            held.put_back()


def attempted(call: Callable[[], object]) -> bool:
    """Whether another call can be made: not all arguments that are made up will do."""
    with put_back():
        try:
            call()
        except Exception:  # not hidden: the call with the user's arguments has been made
            return False
    return True


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
    return {} if module is None else {cell.name: cell for cell in of_module(module)}
