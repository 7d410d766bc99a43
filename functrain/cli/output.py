"""How commands print: a table for people, or one JSON document for machines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from rich import box
from rich.table import Table
from rich.text import Text

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


def printable(value: object) -> str:
    r"""Text from a file, with characters that steer a terminal spelled out.

    Example:
        >>> printable("a\x1b[2Jb\n")
        'a\\x1b[2Jb\\n'
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def cell(value: object, style: str = "") -> Text:
    """A value as the cell of a table; nothing in it is markup."""
    return Text(printable(value), style=style)


def size(count: int) -> str:
    """A number of bytes for people.

    Example:
        >>> size(900), size(2600), size(3 << 30)
        ('900 B', '2.5 KiB', '3.0 GiB')
    """
    if count < 1024:
        return f"{count} B"
    left, units = float(count), iter(("KiB", "MiB", "GiB", "TiB", "PiB"))
    unit = ""
    while left >= 1024 and (larger := next(units, "")):
        left, unit = left / 1024, larger
    return f"{left:.1f} {unit}"


def moment(seconds: object) -> str:
    """A time as UTC to the second, ``-`` where it is not known or cannot be.

    Example:
        >>> moment(0), moment(None)
        ('1970-01-01 00:00:00', '-')
    """
    if not isinstance(seconds, int | float):
        return "-"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "-"


def number(value: object) -> str:
    """A number in four digits; anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else printable(value)


def metrics_text(metrics: object) -> str:
    """Metrics by name on one line, without spaces inside of one.

    Example:
        >>> metrics_text({"loss": 0.25, "eval/accuracy": 1 / 3})
        'loss=0.25 eval/accuracy=0.3333'
    """
    if not isinstance(metrics, Mapping):
        return ""
    return " ".join(f"{printable(name)}={number(value)}" for name, value in metrics.items())


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
