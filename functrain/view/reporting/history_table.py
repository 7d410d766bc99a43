"""A history as a small table: its first and last rows, columns by where they were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from functrain.view.plotting.kinds import chosen, is_evaluation
from functrain.view.plotting.markup import Markup, element, joined
from functrain.view.plotting.progress import PLACES

if TYPE_CHECKING:
    from functrain.training.history import History
    from functrain.training.metrics_log import Row

_HEAD, _TAIL = 3, 4
_WIDTH = 100
_NUMBER = "text-align:right"
Group = tuple[str, list[str]]  # a kind of metrics, and the columns that are of it


def text(history: History) -> str:
    """The table for a terminal, 100 characters wide at most."""
    if not len(history):
        return "History: no steps"
    names, cells = history.names(), _cells(history)
    columns = _fitting(_columns(names), cells)
    groups = _groups(columns, names)
    widths = _widths(groups, cells)
    kinds = (kind.rjust(sum(widths[name] + 1 for name in group) - 1) for kind, group in groups)
    heads = [" | ".join(kinds).rstrip()] if len(groups) > 1 else []
    rows = [dict(zip(columns, columns, strict=True)), *cells]
    lines = (_line(row, groups, widths) for row in rows)
    return "\n".join([_title(history), *heads, *lines, *_left_out(names, columns)])


def html(history: History) -> Markup:
    """The table for a notebook."""
    if not len(history):
        return element("b", "History: no steps")
    names = history.names()
    columns = _columns(names)
    kinds = (element("th", kind, colspan=len(group)) for kind, group in _groups(columns, names))
    heads = (element("th", name, style=_NUMBER) for name in columns)
    body = (
        element("tr", *(element("td", row.get(name, ""), style=_NUMBER) for name in columns))
        for row in _cells(history)
    )
    table = element(
        "table",
        element("thead", element("tr", *kinds), element("tr", *heads)),
        element("tbody", *body),
    )
    return joined(element("b", _title(history)), table, *_left_out(names, columns))


def _title(history: History) -> str:
    count = len([name for name in history.names() if name not in PLACES])
    steps, metrics = "step" + "s" * (len(history) != 1), "metric" + "s" * (count != 1)
    return f"History: {len(history):,} {steps}, {count} {metrics}"


def _columns(names: Sequence[str]) -> list[str]:
    """Places in the run, metrics of the step, metrics of evaluations."""
    places = [name for name in names if name in PLACES]
    return places + sorted(chosen(names), key=lambda name: is_evaluation(name, names))


def _groups(columns: Sequence[str], names: Sequence[str]) -> list[Group]:
    def kind(name: str) -> str:
        if name in PLACES:
            return ""
        return "evaluation" if is_evaluation(name, names) else "training"

    return [(found, list(group)) for found, group in groupby(columns, kind)]


def _cells(history: History) -> list[dict[str, str]]:
    """The first rows and the last as text, with dots between them."""
    rows = history.rows
    if len(rows) <= _HEAD + _TAIL + 1:
        return [_written(row) for row in rows]
    dots = {name: "..." for name in rows[0] if name in PLACES}
    return [*map(_written, rows[:_HEAD]), dots, *map(_written, rows[-_TAIL:])]


def _written(row: Row) -> dict[str, str]:
    return {
        name: f"{value:.4g}" if isinstance(value, float) else str(value)
        for name, value in row.items()
    }


def _line(row: Mapping[str, str], groups: Sequence[Group], widths: Mapping[str, int]) -> str:
    parts = (
        " ".join(row.get(name, "").rjust(widths[name]) for name in group) for _, group in groups
    )
    return " | ".join(parts).rstrip()


def _widths(groups: Sequence[Group], cells: Sequence[Mapping[str, str]]) -> dict[str, int]:
    """Of each column what is in it; the first of a kind also has room for the kind's name."""
    widths = {name: _width(name, cells) for _, group in groups for name in group}
    for kind, group in groups:
        together = sum(widths[name] + 1 for name in group) - 1
        widths[group[0]] += max(0, len(kind) - together)
    return widths


def _width(name: str, cells: Sequence[Mapping[str, str]]) -> int:
    return max(len(name), *(len(row.get(name, "")) for row in cells))


def _fitting(columns: Sequence[str], cells: Sequence[Mapping[str, str]]) -> list[str]:
    """Those columns there is room for, from the left."""
    used, kept = 6, list[str]()
    for name in columns:
        used += _width(name, cells) + 1
        if kept and used > _WIDTH:
            break
        kept.append(name)
    return kept


def _left_out(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    rest = [name for name in names if name not in columns]
    return [f"and {', '.join(rest)}"] if rest else []
