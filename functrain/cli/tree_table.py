"""The tree of a checkpoint as a table with types, sizes, values and statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import attrs
from rich.table import Table
from rich.text import Text

from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.checkpoint.outline import Branch, Entry, Scalar, TensorLeaf
from functrain.cli import output
from functrain.tree import Path, path_string
from functrain.tree.elements import Statistics
from functrain.tree.printing import short_dtype
from functrain.view import plain_text

# Scalars shown per node; a scheduler or a listener may have thousands.
_MOST_SCALARS = 16
# Names up to this width do not wrap; statistics leave no room for types on narrow terminals.
_MOST_KEPT, WIDE = 32, 100
NUMBERS = ("min", "max", "mean", "std")


@attrs.frozen(eq=False)
class Row:
    """An entry of the tree with its value or statistics."""

    entry: Entry
    value: Any = None
    statistics: Statistics | None = None


def table_of(rows: Sequence[Row], stats: bool, with_type: bool) -> Table:
    """Return a table with a row for each entry, indented by depth.

    Args:
        rows: the rows to show.
        stats: show columns for statistics instead of sizes.
        with_type: show a column for dtypes, shapes and classes.
    """
    numbers = NUMBERS if stats else ("size",)
    columns = ("leaf", *(("type",) if with_type else ()), *numbers, "value")
    with_notes = any(_note(row) for row in rows)
    shown = columns if with_notes else columns[:-1]
    least = {"leaf": min(_MOST_KEPT, max(_name(row.entry).cell_len for row in rows))}
    table = output.table(*shown, right=("size", *NUMBERS), folded=("leaf", "value"), least=least)
    scalars: Counter[Path] = Counter()
    aliases = _paths_by_index(rows)
    for row in rows:
        entry = row.entry
        if isinstance(entry, Scalar):
            scalars[entry.path[:-1]] += 1
            if scalars[entry.path[:-1]] > _MOST_SCALARS:
                continue
        cells = [_name(entry)]
        cells += [_type(entry, stats)] if with_type else []
        cells += _numbers(row.statistics) if stats else [_size(entry)]
        cells += [output.cell(_note(row, aliases))] if with_notes else []
        table.add_row(*cells)
    hidden = sum(max(0, count - _MOST_SCALARS) for count in scalars.values())
    if hidden:
        table.add_row(output.cell(f"... {hidden:,} more scalars (--only, --json)", "dim"))
    return table


def _paths_by_index(rows: Sequence[Row]) -> dict[int, str]:
    entries = (row.entry for row in rows)
    return {e.index: path_string(e.path) for e in entries if isinstance(e, TensorLeaf)}


def _name(entry: Entry) -> Text:
    depth = max(0, len(entry.path) - 1)
    name = plain_text.printable(entry.path[-1]) if entry.path else "(root)"
    return Text("  " * depth + name, style="bold" if isinstance(entry, Branch) else "")


def _type(entry: Entry, short: bool) -> Text:
    if isinstance(entry, Branch):
        return output.cell(entry.title if entry.size else f"{entry.title}, empty", "dim")
    if isinstance(entry, Scalar):
        return output.cell(type_of(entry), "dim")
    shape, dtype = ",".join(map(str, entry.leaf.shape)), entry.leaf.dtype
    return output.cell(f"{short_dtype(BY_NAME[dtype]) if short else dtype}[{shape}]")


def _size(entry: Entry) -> Text:
    return Text(plain_text.size(entry.leaf.length) if isinstance(entry, TensorLeaf) else "")


def type_of(entry: Scalar) -> str:
    """Return the name of the type of a scalar."""
    return (
        "enum"
        if isinstance(entry.json, dict) and "$enum" in entry.json
        else ("None" if entry.value is None else type(entry.value).__name__)
    )


def _numbers(found: Statistics | None) -> list[Text]:
    if found is None:
        return [Text()] * len(NUMBERS)
    four = (found.minimum, found.maximum, found.mean, found.std)
    return [Text("-" if value is None else f"{value:.3g}") for value in four]


def _note(row: Row, paths: dict[int, str] | None = None) -> str:
    """Return the value of a scalar, or device, aliases and nonfinite counts of a tensor."""
    entry = row.entry
    if isinstance(entry, Scalar):
        return "" if entry.value is None else repr(entry.value)
    if not isinstance(entry, TensorLeaf):
        return ""
    parts = [] if entry.leaf.shape or row.value is None else [repr(row.value)]
    counted = row.statistics
    for name, count in (("NaN", counted.nan), ("Inf", counted.infinite)) if counted else ():
        if count:
            parts.append(f"{count:,} {name}")
    if entry.leaf.device != "cpu":
        parts.append(f"on {entry.leaf.device}")
    if entry.leaf.alias_of is not None:
        parts.append(f"same memory as {(paths or {}).get(entry.leaf.alias_of, '')}".rstrip())
    return ", ".join(parts)
