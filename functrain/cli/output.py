"""Print tables and warnings for people, or one JSON document for programs."""

from __future__ import annotations

import codecs
import io
import math
import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from operator import gt
from typing import Any

import attrs
import orjson
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from functrain.errors import FunctrainWarning
from functrain.errors.output import spelled_out
from functrain.view.plain_text import printable

# Words up to this width are not broken, if there is room for them.
_MOST_KEPT = 32
_LEAST_WIDTH = 8
# Without a terminal each row is one line, for other programs.
_PIPE_WIDTH = 10_000


def print_in_any_encoding() -> None:
    """Spell characters out that the standard output of this process cannot take."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding.lower() != "utf-8":
        codecs.register_error("functrain", _spelled_out)
        sys.stdout.reconfigure(errors="functrain")


def _spelled_out(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return spelled_out(error.object[error.start : error.end]), error.end


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


def print_lines(console: Console, *lines: object, style: str = "") -> None:
    """Print lines in full, however narrow the terminal is."""
    for line in lines:
        console.print(cell(line, style), soft_wrap=True)


def print_table(
    console: Console,
    heads: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[str] = (),
    folded: Sequence[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """Print a table in full, or as much of it as the terminal has room for.

    It has no frame, so that other programs can process its rows. Empty columns are left out. If the
    table is too wide, ``folded`` columns wrap between words; then ``spare`` columns are left out in
    order, which the last line says; then words are broken, and in a very narrow terminal numbers
    too. Nothing is cut off, as rich would.
    """
    texts = [[each if isinstance(each, Text) else cell(each) for each in row] for row in rows]
    columns = [
        _Column(head, cells, head in folded)
        for head, cells in zip(heads, zip_longest(*texts, fillvalue=Text()), strict=False)
        if any(cells)
    ]
    left_out = list[str]()
    while spare and sum(column.least() for column in columns) > _room(console, columns):
        columns = [column for column in columns if column.head != spare[0]]
        left_out, spare = [*left_out, spare[0]], spare[1:]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column, width in zip(columns, _widths(columns, _room(console, columns)), strict=True):
        side: Any = "right" if column.head in right else "left"
        table.add_column(column.head, justify=side, width=width, overflow="fold")
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    console.print(table)
    if left_out:
        console.print(cell(f"(narrow terminal: without {', '.join(left_out)})", "dim"))


@attrs.frozen(eq=False)
class _Column:
    head: str
    cells: tuple[Text, ...]
    folded: bool

    def widest(self) -> int:
        return max(map(cell_len, self._texts()))

    def least(self) -> int:
        """Return the width at which no word is broken, or no cell if the column never wraps."""
        if not self.folded:
            return self.widest()
        words = (
            len(text) - len(text.lstrip()) + max(map(cell_len, text.split()), default=0)
            for text in self._texts()
        )
        return min(_MOST_KEPT, max(words))

    def broken(self) -> int:
        return min(_LEAST_WIDTH, self.least()) if self.folded else self.least()

    def _texts(self) -> list[str]:
        return [self.head, *map(str, self.cells)]


def _room(console: Console, columns: Sequence[_Column]) -> int:
    """Return the width for all cells; rich counts the gap after the last column too."""
    return console.width - 2 * len(columns) + 1


def _widths(columns: Sequence[_Column], room: int) -> list[int]:
    """Return the width of each column: its widest cell, or less where that is too much."""
    widths = [min(room, column.widest()) for column in columns]
    for bounds in ([c.least() for c in columns], [c.broken() for c in columns], [1] * len(columns)):
        while sum(widths) > room and (over := [*map(gt, widths, bounds)]) and any(over):
            widest = max(width for width, more in zip(widths, over, strict=True) if more)
            at = next(n for n, width in enumerate(widths) if over[n] and width == widest)
            widths[at] -= 1
    return widths


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
