"""How commands print: a table for people, or one JSON document for machines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson
from rich import box
from rich.table import Table
from rich.text import Text

from functrain.view.plain_text import printable

_LEAST_WIDTH = 8


def table(
    *columns: str,
    right: tuple[str, ...] = (),
    folded: tuple[str, ...] = (),
    least: Mapping[str, int] | None = None,
    most: Mapping[str, int] | None = None,
) -> Table:
    """An empty table without frame, so that rows can be searched and cut by other programs.

    Args:
        columns: headings.
        right: those whose cells are numbers.
        folded: those that go on in the next line where there is no room; the others never break.
        least: characters that a folded one gets in any case.
        most: characters that a column gets at most.
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
    """A value as the cell of a table; nothing in it is markup."""
    return Text(printable(value), style=style)


def print_json(document: Any) -> None:
    """Print one document on standard output."""
    print(orjson.dumps(plain(document), option=orjson.OPT_INDENT_2).decode())


def plain(value: Any) -> Any:
    """Data as JSON can hold it: what is not finite, not text or beyond 64 bits becomes a string.

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
