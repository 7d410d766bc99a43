"""Print tables and warnings for people, or one JSON document for programs."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import orjson
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from functrain.errors import FunctrainWarning
from functrain.view.plain_text import printable

_LEAST_WIDTH = 8
_PLAIN_WIDTH = 100


def console() -> Console:
    """Return the terminal, or standard output with room for the paths in tables."""
    made = Console()
    # Without a terminal rich assumes 80 columns, which would wrap paths.
    wide = not made.is_terminal and "COLUMNS" not in os.environ
    return Console(width=_PLAIN_WIDTH) if wide else made


def table(
    *columns: str,
    right: tuple[str, ...] = (),
    folded: tuple[str, ...] = (),
    least: Mapping[str, int] | None = None,
    most: Mapping[str, int] | None = None,
) -> Table:
    """Return an empty table without a frame, so that other programs can process its rows.

    Args:
        columns: the headings.
        right: right-aligned columns, for numbers.
        folded: columns that may wrap; the others never do.
        least: minimum widths of folded columns.
        most: maximum widths of columns.
    """
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        fold = name in folded
        made.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=not fold,
            overflow="fold",
            max_width=(most or {}).get(name),
            min_width=(least or {}).get(name, _LEAST_WIDTH) if fold else None,
        )
    return made


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
