"""``report.html``: one self-contained page about one run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from functrain.errors.paths import expanded
from functrain.plotting.chart import chart_of
from functrain.plotting.metric_names import POSITIONS
from functrain.plotting.points import is_drawable
from functrain.tree.printing import byte_size
from functrain.view.blocks import Markup, element, joined, table
from functrain.view.page import chart_html, page
from functrain.view.plain_text import metrics_text, moment
from functrain.view.report_facts import Facts, read_facts
from functrain.view.report_findings import notices, status_of
from functrain.view.run_checkpoints import best_step, entries_of, monitored

FILE_NAME = "report.html"


def report(directory: str | Path, out: str | Path | None = None) -> Path:
    """Write a page about a run, finished or not; the page names everything that is missing.

    Args:
        directory: of the run.
        out: where to write; by default ``report.html`` in the directory.

    Returns:
        The path of the page.

    Raises:
        RunDirectoryError: there is no run.
    """
    facts = read_facts(expanded(directory))
    path = facts.directory / FILE_NAME if out is None else expanded(out)
    sections = (
        _head(facts),
        _notices(facts),
        _curves(facts),
        _metrics(facts),
        _checkpoints(facts),
        _details("Recipe", facts.info.get("recipe"), step=facts.info.get("step")),
        _details("Population", facts.info.get("population")),
        _details("Configuration", facts.config),
        _details("Environment", _environment(facts)),
    )
    path.write_text(page(facts.name, *sections), "utf-8")
    return path


def _head(facts: Facts) -> Markup:
    status, newest = status_of(facts), facts.newest
    kind = "good" if status.good else "bad"
    parent = facts.info.get("parent")
    counts = list(_counts(facts)) if newest is not None or facts.columns.length else []
    return joined(
        element("h1", facts.name),
        element("p", element("b", status.word, class_=kind), ": ", status.detail),
        element("p", str(facts.directory.absolute()), class_="quiet"),
        element("p", "forked from ", str(parent), class_="quiet") if parent else joined(),
        _facts(counts) if counts else joined(),
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
        yield "saved (UTC)", moment(facts.newest.saved_at)
    member = facts.values.get("loop.best.member")
    at = "" if member is None else f".{member}"
    best = facts.values.get(f"loop.best.value{at}")
    if isinstance(best, float):
        monitor = monitored(facts.directory, None, None)["monitor"]
        whose = "" if member is None else f", member {member}"
        step = facts.values.get(f"loop.best.step{at}")
        yield f"best {monitor}", f"{best:.5g} at step {step}{whose}"


def _notices(facts: Facts) -> Markup:
    found = notices(facts)
    if not found:
        return joined()
    items = element("ul", *(element("li", notice) for notice in found))
    return joined(element("h2", "Notices"), items)


def _curves(facts: Facts) -> Markup:
    if not facts.columns.length:
        return joined()
    return joined(element("h2", "Curves"), chart_html(chart_of({facts.name: facts.columns})))


def _metrics(facts: Facts) -> Markup:
    """Return last and extreme values; the reader knows whether less or more is better."""
    columns = facts.columns
    names = [name for name in columns.names() if name not in POSITIONS]
    if not names:
        return joined()
    heads = ("metric", "last", "at step", "min", "at step", "max", "at step")
    rows = (_metric(facts, name) for name in names)
    return joined(element("h2", "Metrics"), table(rows, heads, (None, *["number"] * 6)))


def _metric(facts: Facts, name: str) -> list[str]:
    values, rows = facts.columns.values[name], facts.columns.rows[name]
    steps = facts.columns.steps()

    def cells(index: int) -> list[str]:
        step = "-" if steps is None else f"{steps[rows[index]]:,.0f}"
        return [f"{values[index]:.5g}", step]

    finite = [index for index, value in enumerate(values) if is_drawable(value)]
    if not finite:
        return [name, *cells(-1), "-", "-", "-", "-"]
    low, high = (extreme(finite, key=values.__getitem__) for extreme in (min, max))
    return [name, *cells(-1), *cells(low), *cells(high)]


def _checkpoints(facts: Facts) -> Markup:
    if not facts.checkpoints:
        return joined()
    by = monitored(facts.directory, None, None)
    best = best_step(entries_of(facts.checkpoints), by, required=False)
    rows = [
        (
            "-" if each.step is None else f"{each.step:,}",
            "best" if best is not None and each.step == best else "",
            "-" if each.manifest is None else moment(each.manifest.saved_at),
            byte_size(each.size),
            metrics_text(each.metrics) if each.problem is None else each.problem,
        )
        for each in facts.checkpoints
    ]
    heads = ("step", "", "saved (UTC)", "size", "metrics")
    return joined(element("h2", "Checkpoints"), table(rows, heads, (*["number"] * 4, None)))


def _details(title: str, data: object, **more: object) -> Markup:
    if not data:
        return joined()
    whole = {**data, **more} if isinstance(data, dict) else data
    values = table(_flat(whole), classes=("name", "value"))
    return element("details", element("summary", title), values, open="")


def _environment(facts: Facts) -> dict[str, object]:
    if facts.newest is None:
        return {}
    recorded = facts.info.get("environment")
    return {**facts.newest.versions, **(recorded if isinstance(recorded, dict) else {})}


def _facts(pairs: Iterable[tuple[str, object]]) -> Markup:
    """Return a few values under their names, side by side."""
    cells = (element("div", element("dt", name), element("dd", value)) for name, value in pairs)
    return element("dl", *cells, class_="facts")


def _flat(data: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Return the leaves of nested data with their dotted names; lists of leaves stay whole.

    Example:
        >>> list(_flat({"optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}, "ema": None}))
        [('optimizer.lr', '0.1'), ('optimizer.betas', '[0.9, 0.99]'), ('ema', 'None')]
        >>> list(_flat({"members": [["head", {"lr": 0.1}]]}))  # named ones, as optimizers of groups
        [('members.head.lr', '0.1')]
    """
    children: list[tuple[Any, Any]] = []
    if isinstance(data, Mapping):
        children = list(data.items())
    elif isinstance(data, list | tuple) and any(isinstance(c, Mapping | list) for c in data):
        children = list(data) if all(map(_is_named, data)) else list(enumerate(data))
    if not children:
        yield name, data if isinstance(data, str) else str(data)
    for key, child in children:
        yield from _flat(child, f"{name}.{key}" if name else str(key))


def _is_named(child: Any) -> bool:
    match child:
        case [str(), Mapping()]:
            return True
    return False
