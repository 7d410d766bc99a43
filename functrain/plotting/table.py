"""Rows of metrics as a small table: the first and the last, columns grouped by their origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import attrs

from functrain.metrics.by_member import extremes
from functrain.plotting.metric_names import POSITIONS, chosen, is_evaluation

_HEAD, _TAIL = 3, 4
_WIDTH = 100
Row = Mapping[str, Any]
Group = tuple[str, list[str]]  # "training" or "evaluation", "" for positions; and the columns


@attrs.frozen
class HistoryTable:
    """The cells of a history as text.

    Attributes:
        title: how many steps and metrics there are.
        cells: rows, each by column; a cell may be missing.
        left_out: metrics without a column.
    """

    title: str
    groups: list[Group]
    cells: list[dict[str, str]]
    left_out: list[str]

    @classmethod
    def of(cls, rows: Sequence[Row], width: int | None = None) -> HistoryTable:
        """Lay out the first and last rows.

        ``width`` is of the whole table in characters; None keeps every column.
        """
        names = list(dict.fromkeys(name for row in rows for name in row))
        cells = _cells(rows)
        columns = [name for name in names if name in POSITIONS]
        columns += sorted(chosen(names), key=lambda name: is_evaluation(name, names))
        if width is not None:
            columns = _fitting(columns, cells, width)
        metrics = sum(name not in POSITIONS for name in names)
        title = f"History: {_count(len(rows), 'step')}, {_count(metrics, 'metric')}"
        left_out = [name for name in names if name not in columns]
        return cls(title, _groups(columns, names), cells, left_out)


def text(rows: Sequence[Row]) -> str:
    """Return the table for a terminal, at most 100 characters wide."""
    if not rows:
        return "History: no steps"
    table = HistoryTable.of(rows, _WIDTH)
    widths = _widths(table)
    kinds = (kind.rjust(_span(group, widths)) for kind, group in table.groups)
    heads = [" | ".join(kinds).rstrip()] if len(table.groups) > 1 else []
    names = {name: name for _, group in table.groups for name in group}
    lines = (_line(row, table.groups, widths) for row in (names, *table.cells))
    rest = [f"and {', '.join(table.left_out)}"] if table.left_out else []
    return "\n".join([table.title, *heads, *lines, *rest])


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _groups(columns: Sequence[str], names: Sequence[str]) -> list[Group]:
    def kind(name: str) -> str:
        if name in POSITIONS:
            return ""
        return "evaluation" if is_evaluation(name, names) else "training"

    return [(found, list(group)) for found, group in groupby(columns, kind)]


def _cells(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return the first and the last rows as text, with dots between them."""
    few = rows if len(rows) <= _HEAD + _TAIL + 1 else [*rows[:_HEAD], *rows[-_TAIL:]]
    cells = [{name: _text(value) for name, value in row.items()} for row in few]
    if len(few) < len(rows):
        cells.insert(_HEAD, {name: "..." for name in rows[0] if name in POSITIONS})
    return cells


def _text(value: Any) -> str:
    if isinstance(value, list):  # of members
        low, high = (f"{one:.4g}" for one in extremes(value))
        return low if low == high else f"{low} to {high}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _fitting(columns: Sequence[str], cells: Sequence[Mapping[str, str]], width: int) -> list[str]:
    """Return as many columns from the left as there is room for."""
    used, kept = 6, list[str]()
    for name in columns:
        used += _width(name, cells) + 1
        if kept and used > width:
            break
        kept.append(name)
    return kept


def _widths(table: HistoryTable) -> dict[str, int]:
    """Return the width of each column; the first of a group makes room for the group's name."""
    widths = {name: _width(name, table.cells) for _, group in table.groups for name in group}
    for kind, group in table.groups:
        widths[group[0]] += max(0, len(kind) - _span(group, widths))
    return widths


def _width(name: str, cells: Sequence[Mapping[str, str]]) -> int:
    return max(len(name), *(len(row.get(name, "")) for row in cells))


def _span(group: Sequence[str], widths: Mapping[str, int]) -> int:
    return sum(widths[name] + 1 for name in group) - 1


def _line(row: Mapping[str, str], groups: Sequence[Group], widths: Mapping[str, int]) -> str:
    parts = (
        " ".join(row.get(name, "").rjust(widths[name]) for name in group) for _, group in groups
    )
    return " | ".join(parts).rstrip()
