"""Repeat a step while one thing outside the state varies."""

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
from functrain.core.protocol import AnyProgram
from functrain.testing.conditions import Conditions, Influence
from functrain.testing.module_attributes import (
    OTHER_CONDITIONS,
    ModuleAttributes,
    ModuleStructure,
    try_other_batches,
)
from functrain.testing.observed_calls import snapshots
from functrain.testing.reachable_code import (
    caches,
    class_variables,
    function_variables,
    names_in,
    reachable_functions,
)
from functrain.testing.snapshots import Snapshot, changes, short
from functrain.testing.user_objects import module_of, of_program, roots_of
from functrain.testing.variables import SavedVariable, Variable
from functrain.tree.nodes import copy


@attrs.frozen(eq=False)
class StepVariation:
    """A step, everything that may influence it, and its result without variation.

    Attributes:
        held: initial values of the variables outside the state.
        unheld: variables that cannot be restored.
        made: variables that did not exist before the first step.
        structure: hooks and children of the module when ``held`` was saved.
        beginning: the same before the first step.
        cached: functions with a cache, by name.
        names: names in the code of the functions.
        usual: the bytes of its result.
        changed: values that the step gives to variables, by index in ``held``.
        changed_by_another: the same for a step on another state and batch.
        later: the state after it.
    """

    program: AnyProgram
    state: Any
    batch: Any
    functions: list[FunctionType]
    held: list[SavedVariable]
    unheld: list[Variable]
    cached: dict[str, Any]
    names: frozenset[str]
    environment: set[str] = attrs.field(factory=set)
    asked: set[str] = attrs.field(factory=set)
    usual: Snapshot = attrs.field(factory=dict)
    changed: dict[int, Any] = attrs.field(factory=dict)
    changed_by_another: dict[int, Any] = attrs.field(factory=dict)
    later: list[Any] = attrs.field(factory=list)
    made: list[Variable] = attrs.field(factory=list)
    structure: list[ModuleStructure] = attrs.field(factory=list)
    beginning: list[ModuleStructure] = attrs.field(factory=list)

    @classmethod
    def of(cls, program: AnyProgram, state: Any, batch: Any) -> StepVariation:
        """Find everything to vary, and make the step under the default conditions."""
        roots = roots_of(program)
        functions = reachable_functions(roots)
        cached = caches(roots, functions)
        names = frozenset(name for each in functions for name in names_in(each.__code__))

        def found() -> StepVariation:
            cells = [
                *of_program(program),
                *function_variables(functions),
                *class_variables(roots, functions),
            ]
            tried = [(cell, SavedVariable.by(cell)) for cell in cells]
            held = [each for _, each in tried if each is not None and not each.is_used_up]
            unheld = [cell for cell, each in tried if each is None or each.is_used_up]
            return cls(program, state, batch, functions, held, unheld, cached, names)

        module, first = module_of(program), found()
        beginning = ModuleStructure.of_all(module)
        first.step(Conditions())  # the first step creates some attributes
        made = attrs.evolve(found(), structure=ModuleStructure.of_all(module), beginning=beginning)
        result = made.step(Conditions(), made.changed)
        made.usual.update(snapshots(result))
        made.later.append(result["new_state"])
        before = {each.cell.name for each in first.held}
        made.made.extend(each.cell for each in made.held if each.cell.name not in before)
        made.empty()
        made.another_step()
        return made

    def empty(self) -> None:
        """Remove what the first step created, and empty all caches."""
        for cell in self.made:
            cell.remove()
        for each in self.beginning:
            each.restore()
        self.empty_caches()

    def empty_caches(self) -> None:
        """Empty the caches of ``functools.lru_cache``."""
        for each in self.cached.values():
            each.cache_clear()

    def another_step(self) -> bool:
        """Make a step on another state and batch, at another time; return whether it worked."""
        self.empty_caches()

        def call(batch: Any) -> None:
            other = attrs.evolve(self, state=self.later[0], batch=batch, changed_by_another={})
            other.step(OTHER_CONDITIONS, self.changed_by_another)

        attributes = ModuleAttributes.of(module_of(self.program))
        return try_other_batches(call, self.batch, attributes)

    def step(self, conditions: Conditions, changed: dict[int, Any] | None = None) -> Any:
        """Return new state and metrics under some conditions, then restore all variables.

        ``changed`` collects the values that the step gives to variables.
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
                    structure.restore()
                for held_cell in self.held:
                    held_cell.restore()

    def differs(self, conditions: Conditions, cached: bool = False) -> str | None:
        """Describe how the result differs from the usual one, or return ``None``.

        Caches are emptied before, unless ``cached``.
        """
        if not cached:
            self.empty_caches()
        try:
            result = self.step(conditions)
        except Exception as error:  # not hidden: failing is a difference
            return f"the step fails with {type(error).__name__}: {error}"
        found = changes(self.usual, snapshots(result), "{} and {}")
        return f"{found[0].place} differs: {found[0].detail}" if found else None

    def cells(self) -> Iterator[Influence]:
        """Set each variable to other values, and yield those that make a difference."""
        for index, held in enumerate(self.held):
            for value, by in self._other_values(index):
                held.put(value)
                if self.differs(Conditions()) is not None:
                    yield _influence(held, value, by)
                    break

    def caches(self) -> Iterator[Influence]:
        """Yield caches whose content depends on which step filled them."""
        if not self.cached or not self.another_step():
            return
        found = self.differs(Conditions(), cached=True)
        if found is not None:
            detail = f"when another step has filled it, {found}"
            yield Influence(", ".join(self.cached), "cache", "hidden state", detail)

    def _other_values(self, index: int) -> Iterator[tuple[Any, str]]:
        """Yield the values that steps give to a variable, or another number, with the cause."""
        if index in self.changed:
            yield self.changed[index], "a step"
        if index in self.changed_by_another:
            yield self.changed_by_another[index], "a step on another state and batch"
        if index not in self.changed:
            value = self._other_number(self.held[index])
            if value is not None:
                yield value, ""

    def _other_number(self, held: SavedVariable) -> Any:
        """Return another value for a number that the user's code reads, else ``None``.

        Numbers in libraries are not varied: they are constants, and some are sizes of memory that
        kernels do not check.
        """
        name = held.cell.name.rpartition(".")[2]
        if held.cell.kind == "attribute" and name not in self.names:
            return None
        return _other_number(held.content)

    def other_value(self, name: str) -> str:
        """Return another value for an environment variable."""
        value = os.environ.get(name, "6")
        return str(int(value) + 1) if value.isdigit() else f"{value}x"

    def _changed(self) -> dict[int, Any]:
        return {
            index: now.content
            for index, held in enumerate(self.held)
            if held.differs() and (now := SavedVariable.by(held.cell)) is not None
        }


def _influence(held: SavedVariable, value: Any, by: str) -> Influence:
    cell, (one, other) = held.cell, (short(tree.summary(each)) for each in (held.content, value))
    if by:
        shown = " object at 0x" not in one
        what = f"{by} makes {other} of {one}" if shown else f"{by} changes its content"
        detail = f"{what}, and depends on it"
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
