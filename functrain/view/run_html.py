"""A run in a notebook: how it ended, its curves, and its history folded up."""

from __future__ import annotations

from collections.abc import Iterator

from functrain.plotting.metric_names import chosen, order, panel_of
from functrain.training.history import History, Run
from functrain.view import history_html
from functrain.view.blocks import block, folding, quiet, table
from functrain.view.markup import Markup, element
from functrain.view.metric_charts import Series, metric_charts

_CHARTS = 6  # metrics beyond these are only named


def html(run: Run) -> Markup:
    """Return the facts, the charts and the history."""
    panels = _panels(run.history)
    drawn = dict(list(panels.items())[:_CHARTS])
    others = [name for name in panels if name not in drawn]
    return block(
        element("b", "Run"),
        " ",
        quiet(f"{run.reason}: {run.detail}"),
        table(_facts(run)),
        metric_charts(drawn) if drawn else "",
        quiet(f"not drawn: {', '.join(others)}") if others else "",
        folding(["history"], history_html.html(run.history)),
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


def _panels(history: History) -> dict[str, dict[str, Series]]:
    """Return the metrics of each panel as steps and values."""
    names = history.names()
    shown = chosen(names)
    panels = sorted(dict.fromkeys(panel_of(name, names) for name in shown), key=order)
    return {
        panel: {name: history.column(name) for name in shown if panel_of(name, names) == panel}
        for panel in panels
    }
