"""A run in a notebook: how it ended, its curves, and its history folded up."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from functrain.plotting import Columns, chart_of
from functrain.training.history import Run
from functrain.view import history_html
from functrain.view.blocks import block, folding, quiet, table
from functrain.view.charts import titled
from functrain.view.markup import Markup, element

_CHARTS = 6  # metrics beyond these are only named


def html(run: Run) -> Markup:
    """Return the facts, the charts and the history."""
    chart = chart_of({"": Columns.of(run.history)}) if len(run.history) else None
    panels = () if chart is None else chart.panels
    others = ", ".join(panel.title for panel in panels[_CHARTS:])
    return block(
        element("b", "Run"),
        " ",
        quiet(f"{run.reason}: {run.detail}"),
        table(_facts(run)),
        titled(attrs.evolve(chart, panels=panels[:_CHARTS])) if chart is not None else "",
        quiet(f"not drawn: {others}") if others else "",
        folding(["history"], history_html.html(run.history)),
    )


def _facts(run: Run) -> Iterator[tuple[str, str]]:
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
