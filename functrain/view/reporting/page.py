"""``report.html``: one page about one run that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from functrain.cli import output
from functrain.cli.listing import entries_of
from functrain.cli.targets import best_step, monitored
from functrain.view.plotting.charts import chart_of
from functrain.view.plotting.decimation import drawable
from functrain.view.plotting.markup import Markup, element, joined
from functrain.view.plotting.page import Figure, figure, page
from functrain.view.plotting.progress import PLACES
from functrain.view.reporting import tables
from functrain.view.reporting.gathering import Facts, gather
from functrain.view.reporting.notices import notices
from functrain.view.reporting.status import status_of

FILE_NAME = "report.html"


def report(directory: str | Path, out: str | Path | None = None) -> Path:
    """Write a page about a run, finished or not; what is missing is said on it.

    Args:
        directory: of the run; nothing else in it is changed.
        out: where to write; by default ``report.html`` in it.

    Returns:
        Where it was written.

    Raises:
        RunDirectoryError: there is no run.
    """
    facts = gather(Path(directory))
    path = Path(directory) / FILE_NAME if out is None else Path(out)
    drawn = figure(chart_of({facts.name: facts.columns})) if facts.columns.length else None
    sections = (
        _head(facts),
        _notices(facts),
        _curves(drawn),
        _metrics(facts),
        _checkpoints(facts),
        _details("Recipe", facts.info.get("recipe"), step=facts.info.get("step")),
        _details("Configuration", facts.config),
        _details("Environment", _environment(facts)),
    )
    figures = () if drawn is None else (drawn,)
    path.write_text(page(facts.name, *sections, figures=figures), "utf-8")
    return path


def _head(facts: Facts) -> Markup:
    status, newest = status_of(facts), facts.newest
    kind = "good" if status.good else "bad"
    parent = facts.info.get("parent")
    return joined(
        element("h1", facts.name),
        element("p", element("b", status.word, class_=kind), ": ", status.detail),
        element("p", str(facts.directory.absolute()), class_="quiet"),
        element("p", "goes back to ", str(parent), class_="quiet") if parent else joined(),
        tables.facts(_counts(facts)) if newest is not None or facts.columns.length else joined(),
    )


def _counts(facts: Facts) -> Iterator[tuple[str, object]]:
    for name, label in (("step", "steps"), ("epoch", "epochs"), ("samples", "samples")):
        value = facts.values.get(f"train.counters.{name}")
        if isinstance(value, int):
            yield label, f"{value:,}"
    if not facts.values:
        yield "steps in the log", f"{facts.columns.length:,}"
    seconds = facts.info.get("seconds")
    if isinstance(seconds, float) and 0 <= seconds < 1e9:
        short = f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))
        yield "time trained", short
    if facts.newest is not None:
        yield "saved (UTC)", output.moment(facts.newest.saved_at)
    best = facts.values.get("loop.best.value")
    if isinstance(best, float):
        monitor = monitored(facts.directory, None, None)["monitor"]
        yield f"best {monitor}", f"{best:.5g} at step {facts.values.get('loop.best.step')}"


def _notices(facts: Facts) -> Markup:
    found = notices(facts)
    if not found:
        return joined()
    items = element("ul", *(element("li", notice) for notice in found))
    return joined(element("h2", "Notices"), items)


def _curves(drawn: Figure | None) -> Markup:
    if drawn is None:
        return joined()
    return joined(element("h2", "Curves"), drawn.body)


def _metrics(facts: Facts) -> Markup:
    """Last and extreme values; which of them is best only the reader knows."""
    columns = facts.columns
    names = [name for name in columns.names() if name not in PLACES]
    if not names:
        return joined()
    heads = ("metric", "last", "at step", "least", "at step ", "greatest", "at step  ")
    rows = (_metric(facts, name) for name in names)
    return joined(element("h2", "Metrics"), tables.table(heads, rows, heads[1:]))


def _metric(facts: Facts, name: str) -> list[str]:
    values, rows = facts.columns.values[name], facts.columns.rows[name]
    steps = facts.columns.values.get("step")
    known = steps is not None and len(steps) == facts.columns.length

    def cells(index: int) -> list[str]:
        step = f"{steps[rows[index]]:,.0f}" if known and steps is not None else "-"
        return [f"{values[index]:.5g}", step]

    finite = [index for index, value in enumerate(values) if drawable(value)]
    if not finite:
        return [name, *cells(-1), "-", "-", "-", "-"]
    least, greatest = (extreme(finite, key=values.__getitem__) for extreme in (min, max))
    return [name, *cells(-1), *cells(least), *cells(greatest)]


def _checkpoints(facts: Facts) -> Markup:
    if not facts.checkpoints:
        return joined()
    by = monitored(facts.directory, None, None)
    best = best_step(entries_of(facts.checkpoints), by, asked=False)
    rows = [
        (
            "-" if row.step is None else f"{row.step:,}",
            "best" if best is not None and row.step == best else "",
            "-" if row.manifest is None else output.moment(row.manifest.saved_at),
            output.size(row.size),
            output.metrics_text(row.metrics) if row.problem is None else row.problem,
        )
        for row in facts.checkpoints
    ]
    heads = ("step", "", "saved (UTC)", "size", "metrics")
    return joined(element("h2", "Checkpoints"), tables.table(heads, rows, heads[:-1]))


def _details(title: str, data: object, **more: object) -> Markup:
    """A long table that is opened when it is wanted."""
    if not data:
        return joined()
    whole = {**data, **more} if isinstance(data, dict) else data
    return element("details", element("summary", title), tables.nested(whole), open="")


def _environment(facts: Facts) -> dict[str, object]:
    if facts.newest is None:
        return {}
    told = facts.info.get("environment")
    return {**facts.newest.versions, **(told if isinstance(told, dict) else {})}
