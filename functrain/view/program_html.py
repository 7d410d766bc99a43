"""A program in a notebook: its recipe as a table, its learning rates as curves."""

from __future__ import annotations

from collections.abc import Iterator

from functrain.core.learning_rate import Schedules
from functrain.core.program import Program
from functrain.core.schedule import Schedule
from functrain.schedules import Constant
from functrain.view.blocks import block, code, quiet, table
from functrain.view.markup import Markup, element
from functrain.view.schedule_html import curve


def html(program: Program) -> Markup:
    """Return the table and the curves."""
    params = program.fixed.model.params
    trained = sum(params[path].numel() for path in program.fixed.trainable)
    frozen = sum(tensor.numel() for tensor in params.values()) - trained
    note = f"{trained:,} trained parameters" + (f", {frozen:,} frozen" if frozen else "")
    rows = (
        (name, quiet(value) if value == "None" else code(value))
        for name, value in program.recipe.rows()
    )
    curves = (
        element("div", quiet(name), curve(schedule))
        for name, schedule in _changing(program.schedules)
    )
    return block(element("b", "Program"), " ", quiet(note), table(rows), *curves)


def _changing(given: Schedules, name: str = "lr") -> Iterator[tuple[str, Schedule]]:
    """Return the schedules that are not constant, by the names of their rates in the log."""
    if isinstance(given, dict):
        for inner, own in given.items():
            yield from _changing(own, f"{name}.{inner}")
    elif not isinstance(given, Constant):
        yield name, given
