"""Values as short plain text that is safe to print: names from files, sizes, times, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime


def printable(value: object, keep: str = "") -> str:
    r"""Return text with control characters and lone surrogates spelled out.

    Args:
        value: what is written as text.
        keep: characters to leave as they are.

    Example:
        >>> printable("a\x1b[2Jb\n\udc80")
        'a\\x1b[2Jb\\n\\udc80'
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode()
        for char in text
    )


def size(count: int) -> str:
    """Return a number of bytes in binary units.

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
    """Return a time as UTC to the second, ``-`` where it is unknown or out of range.

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
    """Return a float in four digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else printable(value)


def metrics_text(metrics: object) -> str:
    """Return metrics by name on one line, without spaces inside of one.

    Example:
        >>> metrics_text({"loss": 0.25, "eval/accuracy": 1 / 3})
        'loss=0.25 eval/accuracy=0.3333'
    """
    if not isinstance(metrics, Mapping):
        return ""
    return " ".join(f"{printable(name)}={number(value)}" for name, value in metrics.items())
