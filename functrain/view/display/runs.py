"""A run in a notebook: how it ended, its curves, and its history folded up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from functrain.view.display import growing
from functrain.view.display.blocks import block, folding, quiet, table
from functrain.view.plotting.kinds import chosen, order, panel_of
from functrain.view.plotting.markup import Markup, element
from functrain.view.reporting import history_table

if TYPE_CHECKING:
    from functrain.training.history import History, Run

_CHARTS = 6  # of further metrics the names are told


def html(run: Run) -> Markup:
    """A run for a notebook."""
    panels = _panels(run.history)
    drawn = dict(list(panels.items())[:_CHARTS])
    others = [name for name in panels if name not in drawn]
    return block(
        element("b", "Run"),
        " ",
        quiet(f"{run.reason}: {run.detail}"),
        table(_facts(run)),
        growing.html(drawn) if drawn else "",
        quiet(f"not drawn: {', '.join(others)}") if others else "",
        folding(["history"], history_table.html(run.history)),
    )


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    counters, best = run.state.counters, run.best["value"]
    yield "steps, epochs, samples", f"{counters.step:,}, {counters.epoch:,}, {counters.samples:,}"
    if run.new_steps == 0:
        yield "by this call", "nothing was trained: the run had ended"
    yield "time trained", f"{run.seconds:.1f} s"
    if best is not None:
        yield "best", f"{best:.4g} at step {run.best['step']:,}"
    if run.directory is not None:
        yield "directory", str(run.directory)


def _panels(history: History) -> dict[str, dict[str, growing.Series]]:
    """The metrics by the panel they are drawn in, each as steps and values."""
    names = history.names()
    shown = chosen(names)
    panels = sorted(dict.fromkeys(panel_of(name, names) for name in shown), key=order)
    return {
        panel: {name: history.column(name) for name in shown if panel_of(name, names) == panel}
        for panel in panels
    }
