"""Steps made again and again while one thing outside the state is varied."""

from __future__ import annotations

import copy as python
import math
import os
import warnings
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import attrs

from functrain import tree
from functrain.copying import copy
from functrain.program import Program
from functrain.testing.cells import Cell, Held, of_module, of_object
from functrain.testing.comparing import Snapshot, changes
from functrain.testing.conditions import Conditions
from functrain.testing.influences import Influence
from functrain.testing.observing import snapshots
from functrain.testing.reach import is_users, names_in, of_functions, reached


@attrs.frozen(eq=False)
class Varying:
    """A step, everything that may influence it, and what it gives when nothing is varied.

    Attributes:
        program: whose step.
        state: where it begins.
        batch: what it is given.
        functions: of the user's, that it may call.
        held: what the cells outside the state held at first.
        environment: variables that it was seen to read.
        names: that occur in the code of the functions.
        usual: the bytes of its result.
        changed: for each cell that it changes, what it makes of it, by index in ``held``.
    """

    program: Program
    state: Any
    batch: Any
    functions: list[FunctionType]
    held: list[Held]
    environment: set[str]
    names: frozenset[str]
    usual: Snapshot = attrs.field(factory=dict)
    changed: dict[int, Any] = attrs.field(factory=dict)

    @classmethod
    def of(cls, program: Program, state: Any, batch: Any) -> Varying:
        """Find what there is to vary, and make the step under the usual conditions."""
        functions = reached(_roots(program))
        names = frozenset(name for each in functions for name in names_in(each.__code__))

        def found() -> Varying:
            cells = [*_cells(program), *of_functions(functions)]
            held = [each for each in map(Held.by, cells) if each is not None]
            return cls(program, state, batch, functions, held, set(), names)

        found().step(Conditions())  # some attributes are made by the first step
        made = found()
        made.usual.update(snapshots(made.step(Conditions(), made.changed)))
        return made

    def step(self, conditions: Conditions, changed: dict[int, Any] | None = None) -> Any:
        """New state and metrics under some conditions; afterwards all cells are put back.

        Args:
            conditions: that are held meanwhile.
            changed: takes up what the step makes of cells.
        """
        state, batch = copy(self.state), python.deepcopy(self.batch)
        with conditions.hold(self.functions, self.environment), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                new, metrics = self.program.train_step(state, batch)
                return {"new_state": new, "metrics": metrics}
            finally:
                if changed is not None:
                    changed.update(self._changed())
                for held in self.held:
                    held.put_back()

    def differs(self, conditions: Conditions) -> str | None:
        """What is another under some conditions than usual, in words; ``None`` if nothing is."""
        try:
            result = self.step(conditions)
        except Exception as error:  # not hidden: that it fails is what was asked for
            return f"the step fails with {type(error).__name__}: {error}"
        found = changes(self.usual, snapshots(result), "{} and {}")
        return f"{found[0].place} differs: {found[0].detail}" if found else None

    def cells(self) -> Iterator[Influence]:
        """Each cell put to another value, and those that make a difference."""
        for index, held in enumerate(self.held):
            stepped = index in self.changed
            value = self.changed[index] if stepped else self._other_number(held)
            if value is None and not stepped:
                continue
            held.put(value)
            found = self.differs(Conditions())
            if found is not None:
                yield _influence(held, value, stepped)

    def _other_number(self, held: Held) -> Any:
        """Another value for a number that code of the user's reads; ``None`` for anything else.

        A library's own numbers are left alone: they are constants, and some are sizes of memory
        that its kernels do not check.
        """
        name = held.cell.name.rpartition(".")[2]
        if held.cell.kind == "attribute" and name not in self.names:
            return None
        return _other_number(held.content)

    def other_value(self, name: str) -> str:
        """Another value for an environment variable."""
        value = os.environ.get(name, "6")
        return str(int(value) + 1) if value.isdigit() else f"{value}x"

    def _changed(self) -> dict[int, Any]:
        return {
            index: now.content
            for index, held in enumerate(self.held)
            if held.differs() and (now := Held.by(held.cell)) is not None
        }


def _influence(held: Held, value: Any, stepped: bool) -> Influence:
    cell, (one, other) = held.cell, (_short(held.content), _short(value))
    if stepped:
        told = " object at 0x" not in one
        what = f"a step makes {other} of {one}" if told else "a step changes what is in it"
        detail = f"{what}, and goes by it"
        return Influence(cell.name, cell.kind, "hidden state", detail)
    return Influence(cell.name, cell.kind, "constant", f"{other} instead of {one} makes a change")


def _other_number(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return 1.5 * value + 1.0 if math.isfinite(value) else 0.0
    return None


def _short(value: Any) -> str:
    text = tree.summary(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _roots(program: Program) -> list[Any]:
    """What a step calls of the user's."""
    recipe, module = program.recipe, program.fixed.model.module
    hooks = [
        hook
        for part in module.modules()
        for hook in (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
    ]
    return [
        recipe.loss,
        recipe.optimizer,
        recipe.optimizer.lr,
        *hooks,
        *map(type, module.modules()),
    ]


def _cells(program: Program) -> Iterator[Cell]:
    """What is kept in objects: the module, and a loss or an optimizer that are the user's own."""
    yield from of_module(program.fixed.model.module)
    loss = getattr(program.recipe.loss, "__self__", program.recipe.loss)
    for name, value in (("loss", loss), ("optimizer", program.recipe.optimizer)):
        if is_users(type(value)):
            yield from of_object(value, name)
