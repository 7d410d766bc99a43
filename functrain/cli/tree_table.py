"""The tree of a checkpoint as a table with types, sizes, values and statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import attrs
from rich.console import Console
from rich.text import Text

from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.checkpoint.outline import Branch, Entry, Scalar, TensorLeaf
from functrain.cli import output
from functrain.tree import Path, path_string
from functrain.tree.elements import Statistics
from functrain.tree.printing import byte_size, tensor_text
from functrain.view import plain_text

# Scalars shown per node; a scheduler or a listener may have thousands.
_MOST_SCALARS = 16
NUMBERS = ("min", "max", "mean", "std")


@attrs.frozen(eq=False)
class Row:
    """An entry of the tree with its value or statistics."""

    entry: Entry
    value: Any = None
    statistics: Statistics | None = None


def print_tree(rows: Sequence[Row], stats: bool, console: Console) -> None:
    """Print a row for each entry, indented by depth.

    Args:
        rows: the rows to show.
        stats: show columns for statistics instead of sizes.
        console: where to print.
    """
    numbers = NUMBERS if stats else ("size",)
    table = output.table("leaf", "value", *numbers, "", right=numbers, folded=("leaf", "value", ""))
    scalars: Counter[Path] = Counter()
    paths = {row.entry.index: row.entry.path for row in rows if isinstance(row.entry, TensorLeaf)}
    for row in rows:
        entry = row.entry
        if isinstance(entry, Scalar):
            scalars[entry.path[:-1]] += 1
            if scalars[entry.path[:-1]] > _MOST_SCALARS:
                continue
        cells = _numbers(row.statistics) if stats else [_size(entry)]
        table.add_row(_name(entry), _value(row), *cells, output.cell(_note(row, paths)))
    hidden = sum(max(0, count - _MOST_SCALARS) for count in scalars.values())
    if hidden:
        table.add_row(output.cell(f"... {hidden:,} more scalars (--only, --json)", "dim"))
    output.print_table(console, table, spare=("value", "std", "mean") if stats else ("size",))


def _name(entry: Entry) -> Text:
    depth = max(0, len(entry.path) - 1)
    name = plain_text.printable(entry.path[-1]) if entry.path else "(root)"
    return Text("  " * depth + name, style="bold" if isinstance(entry, Branch) else "")


def _value(row: Row) -> Text:
    """Return what a state prints for the same leaf, or the class of a node."""
    entry = row.entry
    if isinstance(entry, Branch):
        return output.cell(entry.title if entry.size else f"{entry.title}, empty", "dim")
    if isinstance(entry, Scalar):
        return output.cell(repr(entry.value))
    text = tensor_text(BY_NAME[entry.leaf.dtype], entry.leaf.shape, entry.leaf.device)
    return output.cell(text if row.value is None else f"{text} = {row.value!r}")


def _size(entry: Entry) -> str:
    return byte_size(entry.leaf.length) if isinstance(entry, TensorLeaf) else ""


def _numbers(found: Statistics | None) -> list[str]:
    if found is None:
        return [""] * len(NUMBERS)
    four = (found.minimum, found.maximum, found.mean, found.std)
    return ["-" if value is None else plain_text.number(value) for value in four]


def _note(row: Row, paths: dict[int, Path]) -> str:
    """Return how many values are not finite, and with which tensor it shares memory."""
    counted = row.statistics
    counts = ((counted.nan, "NaN"), (counted.infinite, "Inf")) if counted else ()
    parts = [f"{count:,} {name}" for count, name in counts if count]
    if isinstance(row.entry, TensorLeaf) and row.entry.leaf.alias_of is not None:
        twin = paths.get(row.entry.leaf.alias_of)
        parts.append("same memory as " + ("another leaf" if twin is None else path_string(twin)))
    return ", ".join(parts)
