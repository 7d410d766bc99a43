"""Runs, histories, differences of trees and programs in a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from functrain.core.learning_rate import Schedules
from functrain.core.program import Program
from functrain.core.schedule import Schedule
from functrain.plotting.chart import chart_of
from functrain.plotting.columns import Columns
from functrain.plotting.table import text
from functrain.schedules import Constant
from functrain.training.history import History, Run
from functrain.tree.compare import Difference, ulps_text
from functrain.tree.nodes import path_string
from functrain.view.blocks import Markup, block, code, element, folding, quiet, table
from functrain.view.page import titled
from functrain.view.plain_text import apart, number
from functrain.view.schedule_html import curve

_CHARTS = 6  # metrics beyond these are only named
_TEXT = "overflow-x:auto;background:none;color:inherit;border:0"
_MOST_DIFFERENCES = 100
_HEADS = ("path", "elements", "the first at", "first", "second", "at most", "max abs")


def run_html(run: Run) -> Markup:
    """Return the facts, the charts and the history."""
    chart = chart_of({"": Columns.of(run.history)}) if len(run.history) else None
    panels = () if chart is None else chart.panels
    others = ", ".join(panel.title for panel in panels[_CHARTS:])
    return block(
        element("b", "Run"),
        " ",
        quiet(f"{run.reason}: {run.detail}"),
        table(_run_facts(run)),
        titled(attrs.evolve(chart, panels=panels[:_CHARTS])) if chart is not None else "",
        quiet(f"not drawn: {others}") if others else "",
        folding(["history"], history_html(run.history)),
    )


def _run_facts(run: Run) -> Iterator[tuple[str, str]]:
    counters, best = run.state.counters, run.best["value"]
    yield "steps, epochs, samples", f"{counters.step:,}, {counters.epoch:,}, {counters.samples:,}"
    if run.new_steps == 0:
        yield "by this call", "nothing was trained: the run had ended"
    yield "time trained", f"{run.seconds:.1f} s"
    if (member := run.best.get("member")) is not None:
        place = f"at step {run.best['step'][member]:,}, member {member} of {len(best)}"
        yield "best", f"{best[member]:.4g} {place}"
    elif isinstance(best, float):
        yield "best", f"{best:.4g} at step {run.best['step']:,}"
    if run.directory is not None:
        yield "directory", str(run.directory)


def history_html(history: History) -> Markup:
    """Return the table of the first and last rows, with all of its columns."""
    return element("pre", text(history.rows, width=None), style=_TEXT)


def differences_html(differences: Sequence[Difference]) -> Markup:
    """Return the table, in the order of the tree."""
    if not differences:
        return block(element("b", "no differences"), " ", quiet("the same bytes in every leaf"))
    count = len(differences)
    title = element("b", f"{count:,} difference{'' if count == 1 else 's'}")
    more = [quiet(f"... {count - _MOST_DIFFERENCES:,} more")] if count > _MOST_DIFFERENCES else []
    return block(
        title, table(map(_difference_cells, differences[:_MOST_DIFFERENCES]), _HEADS), *more
    )


def _difference_cells(found: Difference) -> list[object]:
    path = code(path_string(found.path))
    if found.kind != "value" or found.index is None:
        return [path, found.kind, "", element("span", found.detail)]
    values = map(code, apart(found.first, found.second))
    where = code(list(found.index)) if found.index else ""
    return [path, f"{found.count:,}", where, *values, ulps_text(found.ulps), number(found.max_abs)]


def program_html(program: Program) -> Markup:
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
