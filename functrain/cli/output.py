"""Print tables and warnings for people, or one JSON document for programs."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from operator import add, gt
from typing import Any

import orjson
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from functrain.errors import FunctrainWarning
from functrain.view.plain_text import printable

# Words up to this width are not broken, if there is room for them.
_MOST_KEPT = 32
_LEAST_WIDTH = 8
# Without a terminal each row is one line, for other programs.
_PIPE_WIDTH = 10_000


def console() -> Console:
    """Return the terminal, or standard output with room for whole rows; obey ``NO_COLOR``.

    Text is printed as it is: a name or an override may look like markup.
    """
    plain: dict[str, Any] = {"markup": False, "emoji": False}
    # Without a color system rich writes no bold and dim text either.
    plain |= {"color_system": None} if os.environ.get("NO_COLOR") else {}
    made = Console(**plain)
    wide = not made.is_terminal and "COLUMNS" not in os.environ
    return Console(width=_PIPE_WIDTH, **plain) if wide else made


def table(*columns: str, right: tuple[str, ...] = (), folded: tuple[str, ...] = ()) -> Table:
    """Return an empty table without a frame, so that other programs can process its rows.

    Columns in ``folded`` may wrap; the others never do.
    """
    made = _empty()
    for name in columns:
        side: Any = "right" if name in right else "left"
        made.add_column(name, justify=side, no_wrap=name not in folded)
    return made


def print_table(console: Console, table: Table, spare: Sequence[str] = ()) -> None:
    """Print a table in full, or as much of it as the terminal has room for.

    Empty columns are left out. If the table is too wide, columns wrap between words; then spare
    columns are left out in order, which the last line says; then words are broken, and in a very
    narrow terminal numbers too. Nothing is cut off, as rich would.
    """
    columns = [column for column in table.columns if any(map(str, column.cells))]
    left_out = list[str]()
    while spare and sum(map(_least, columns)) > _room(console, columns):
        columns = [column for column in columns if column.header != spare[0]]
        left_out, spare = [*left_out, spare[0]], spare[1:]
    made = _empty()
    for column, width in zip(columns, _widths(columns, _room(console, columns)), strict=True):
        made.add_column(column.header, justify=column.justify, width=width, overflow="fold")
    for row in zip(*(column.cells for column in columns), strict=True):
        made.add_row(*row)
    console.print(made)
    if left_out:
        console.print(cell(f"(narrow terminal: without {', '.join(left_out)})", "dim"))


def _empty() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def _room(console: Console, columns: Sequence[Column]) -> int:
    """Return the width for all cells; rich counts the gap after the last column too."""
    return console.width - 2 * len(columns) + 1


def _widths(columns: Sequence[Column], room: int) -> list[int]:
    """Return the width of each column: its widest cell, or less where that is too much."""
    widths = [min(room, max(map(cell_len, _texts(column)))) for column in columns]
    for least in (map(_least, columns), map(_broken, columns), (1 for _ in columns)):
        bounds = list(least)
        while sum(widths) > room and (over := [*map(gt, widths, bounds)]) and any(over):
            widest = max(width for width, more in zip(widths, over, strict=True) if more)
            at = next(n for n, width in enumerate(widths) if over[n] and width == widest)
            widths[at] -= 1
    return widths


def _least(column: Column) -> int:
    """Return the width at which no word of a column is broken, or no cell if it never wraps."""
    texts = _texts(column)
    if column.no_wrap:
        return max(map(cell_len, texts))
    indents = (len(text) - len(text.lstrip()) for text in texts)
    words = (max(map(cell_len, text.split()), default=0) for text in texts)
    widest: int = max(map(add, indents, words))
    return min(_MOST_KEPT, widest)


def _broken(column: Column) -> int:
    return _least(column) if column.no_wrap else min(_LEAST_WIDTH, _least(column))


def _texts(column: Column) -> list[str]:
    return [str(column.header), *map(str, column.cells)]


def cell(value: object, style: str = "") -> Text:
    """Return the cell of a table for a value, without interpreting markup."""
    return Text(printable(value), style=style)


def print_json(document: Any) -> None:
    """Print one document on standard output."""
    print(orjson.dumps(plain(document), option=orjson.OPT_INDENT_2).decode())


def plain(value: Any) -> Any:
    """Convert data to JSON values; nonfinite, binary and large numbers become strings.

    Example:
        >>> plain({"loss": math.nan, 3: (1 << 70, b"ab")})
        {'loss': 'nan', '3': ['1180591620717411303424', '6162']}
    """
    if isinstance(value, Mapping):
        return {_text(key): plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [plain(child) for child in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 64 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value.hex() if isinstance(value, bytes) else _text(value)


def _text(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    """Print a warning of functrain in one line; it replaces ``warnings.showwarning``."""
    if issubclass(category, FunctrainWarning):
        print(f"functrain: {message}", file=sys.stderr)
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        print(text, end="", file=sys.stderr)
