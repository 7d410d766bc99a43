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
from functrain.core.program import Program
from functrain.testing.another import ANOTHER
from functrain.testing.caching import Attributes, Structure, attempted
from functrain.testing.cells import Cell, Held
from functrain.testing.comparing import Snapshot, changes
from functrain.testing.conditions import Conditions
from functrain.testing.influences import Influence
from functrain.testing.observing import snapshots
from functrain.testing.owned import of_program, roots_of
from functrain.testing.reach import caches, names_in, of_classes, of_functions, reached
from functrain.tree.copying import copy


@attrs.frozen(eq=False)
class Varying:
    """A step, everything that may influence it, and what it gives when nothing is varied.

    Attributes:
        program: whose step.
        state: where it begins.
        batch: what it is given.
        functions: of the user's, that it may call.
        held: what the cells outside the state held at first.
        unheld: cells that cannot be put back.
        made: cells that were empty before the first step.
        structure: hooks and children of the module, as they go with what is held.
        beginning: the same before the first step.
        cached: functions with a cache, by name.
        names: that occur in the code of the functions.
        environment: variables that it was seen to read.
        asked: what it was seen to ask of the system.
        usual: the bytes of its result.
        changed: for each cell that it changes, what it makes of it, by index in ``held``.
        changed_by_another: the same for a step on another state and batch.
        later: the state after it.
    """

    program: Program
    state: Any
    batch: Any
    functions: list[FunctionType]
    held: list[Held]
    unheld: list[Cell]
    cached: dict[str, Any]
    names: frozenset[str]
    environment: set[str] = attrs.field(factory=set)
    asked: set[str] = attrs.field(factory=set)
    usual: Snapshot = attrs.field(factory=dict)
    changed: dict[int, Any] = attrs.field(factory=dict)
    changed_by_another: dict[int, Any] = attrs.field(factory=dict)
    later: list[Any] = attrs.field(factory=list)
    made: list[Cell] = attrs.field(factory=list)
    structure: list[Structure] = attrs.field(factory=list)
    beginning: list[Structure] = attrs.field(factory=list)

    @classmethod
    def of(cls, program: Program, state: Any, batch: Any) -> Varying:
        """Find what there is to vary, and make the step under the usual conditions."""
        roots = roots_of(program)
        functions = reached(roots)
        cached = caches(roots, functions)
        names = frozenset(name for each in functions for name in names_in(each.__code__))

        def found() -> Varying:
            cells = [*of_program(program), *of_functions(functions), *of_classes(roots, functions)]
            tried = [(cell, Held.by(cell)) for cell in cells]
            held = [each for _, each in tried if each is not None and not each.is_used_up]
            unheld = [cell for cell, each in tried if each is None or each.is_used_up]
            return cls(program, state, batch, functions, held, unheld, cached, names)

        module, first = program.fixed.model.module, found()
        beginning = Structure.of_all(module)
        first.step(Conditions())  # some attributes are made by the first step
        made = attrs.evolve(found(), structure=Structure.of_all(module), beginning=beginning)
        result = made.step(Conditions(), made.changed)
        made.usual.update(snapshots(result))
        made.later.append(result["new_state"])
        before = {each.cell.name for each in first.held}
        made.made.extend(each.cell for each in made.held if each.cell.name not in before)
        made.empty()
        made.another_step()
        return made

    def empty(self) -> None:
        """Leave what the first step made as it was before it, and caches empty."""
        for cell in self.made:
            cell.remove()
        for each in self.beginning:
            each.put_back()
        self.empty_caches()

    def empty_caches(self) -> None:
        """Have functions of ``functools.lru_cache`` compute anew."""
        for each in self.cached.values():
            each.cache_clear()

    def another_step(self) -> bool:
        """Make a step from a later state, on another batch, at another time.

        Returns:
            Whether there is such a step: not every batch can be changed.
        """
        self.empty_caches()

        def call(batch: Any) -> None:
            other = attrs.evolve(self, state=self.later[0], batch=batch, changed_by_another={})
            other.step(ANOTHER, self.changed_by_another)

        return attempted(call, self.batch, Attributes.of(self.program.fixed.model.module))

    def step(self, conditions: Conditions, changed: dict[int, Any] | None = None) -> Any:
        """New state and metrics under some conditions; afterwards all cells are put back.

        Args:
            conditions: that are held meanwhile.
            changed: takes up what the step makes of cells.
        """
        state, batch = copy(self.state), python.deepcopy(self.batch)
        held = conditions.hold(self.functions, self.environment, self.asked)
        with held, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                new, metrics = self.program.train_step(state, batch)
                return {"new_state": new, "metrics": metrics}
            finally:
                if changed is not None:
                    changed.update(self._changed())
                for structure in self.structure:
                    structure.put_back()
                for held_cell in self.held:
                    held_cell.put_back()

    def differs(self, conditions: Conditions, cached: bool = False) -> str | None:
        """What is another under some conditions than usual, in words; ``None`` if nothing is.

        Args:
            conditions: that are held meanwhile.
            cached: whether caches of functions keep what is in them.
        """
        if not cached:
            self.empty_caches()
        try:
            result = self.step(conditions)
        except Exception as error:  # not hidden: that it fails is what was asked for
            return f"the step fails with {type(error).__name__}: {error}"
        found = changes(self.usual, snapshots(result), "{} and {}")
        return f"{found[0].place} differs: {found[0].detail}" if found else None

    def cells(self) -> Iterator[Influence]:
        """Each cell put to other values, and those that make a difference."""
        for index, held in enumerate(self.held):
            for value, by in self._other_values(index):
                held.put(value)
                if self.differs(Conditions()) is not None:
                    yield _influence(held, value, by)
                    break

    def caches(self) -> Iterator[Influence]:
        """Caches of functions, where it counts which step filled them."""
        if not self.cached or not self.another_step():
            return
        found = self.differs(Conditions(), cached=True)
        if found is not None:
            detail = f"when another step has filled it, {found}"
            yield Influence(", ".join(self.cached), "cache", "hidden state", detail)

    def _other_values(self, index: int) -> Iterator[tuple[Any, str]]:
        """What steps make of a cell, or another number; and which step it was."""
        if index in self.changed:
            yield self.changed[index], "a step"
        if index in self.changed_by_another:
            yield self.changed_by_another[index], "a step on another state and batch"
        if index not in self.changed:
            value = self._other_number(self.held[index])
            if value is not None:
                yield value, ""

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


def _influence(held: Held, value: Any, by: str) -> Influence:
    cell, (one, other) = held.cell, (_short(held.content), _short(value))
    if by:
        told = " object at 0x" not in one
        what = f"{by} makes {other} of {one}" if told else f"{by} changes what is in it"
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
