"""Rows of metrics as a small table: the first and the last, columns grouped by their origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from functrain.metrics.by_member import extremes
from functrain.plotting.metric_names import POSITIONS, choose_metrics, is_evaluation

_HEAD, _TAIL = 3, 4
Row = Mapping[str, Any]
Group = tuple[str, list[str]]  # "training" or "evaluation", "" for positions; and the columns


def text(rows: Sequence[Row], width: int | None = 100) -> str:
    """Return the first and last rows as a table of so many characters; None keeps every column.

    Example:
        >>> print(text([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "eval/loss": 1.0}]))
        History: 2 steps, 2 metrics
             | training | evaluation
        step |     loss |  eval/loss
           1 |      0.5 |
           2 |     0.25 |          1
    """
    if not rows:
        return "History: no steps"
    names = list(dict.fromkeys(name for row in rows for name in row))
    metrics = [name for name in names if name not in POSITIONS]
    cells = _cells(rows)
    columns = [name for name in names if name in POSITIONS]
    columns += sorted(choose_metrics(names), key=lambda name: is_evaluation(name, names))
    if width is not None:
        columns = _fitting(columns, cells, width)
    groups = _groups(columns, names)
    widths = _widths(groups, cells)
    kinds = (kind.rjust(_span(group, widths)) for kind, group in groups)
    heads = [" | ".join(kinds).rstrip()] if len(groups) > 1 else []
    lines = (
        _line(row, groups, widths) for row in (dict(zip(columns, columns, strict=True)), *cells)
    )
    left_out = [name for name in names if name not in columns]
    title = f"History: {_count(len(rows), 'step')}, {_count(len(metrics), 'metric')}"
    rest = [f"and {', '.join(left_out)}"] if left_out else []
    return "\n".join([title, *heads, *lines, *rest])


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


def _widths(groups: Sequence[Group], cells: Sequence[Mapping[str, str]]) -> dict[str, int]:
    """Return the width of each column; the first of a group makes room for the group's name."""
    widths = {name: _width(name, cells) for _, group in groups for name in group}
    for kind, group in groups:
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
