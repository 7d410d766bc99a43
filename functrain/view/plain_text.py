"""Values as short plain text that is safe to print: names from files, sizes, times, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime


def printable(value: object, keep: str = "") -> str:
    r"""Return text with control characters and lone surrogates spelled out.

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
    """Return a float in four significant digits, anything else as it is.

    Example:
        >>> number(0.0185912), number(64), number("gelu")
        ('0.01859', '64', 'gelu')
    """
    return f"{value:.4g}" if isinstance(value, float) else printable(value)


def apart(first: object, second: object) -> tuple[str, str]:
    """Return two values in four digits, or in as many as tell them apart.

    Example:
        >>> apart(0.1, 0.25), apart(0.1, 0.1 + 1e-12)
        (('0.1', '0.25'), ('0.1', '0.100000000001'))
    """
    if isinstance(first, float) and isinstance(second, float) and first == first != second:
        pairs = ((f"{first:.{digits}g}", f"{second:.{digits}g}") for digits in range(4, 17))
        return next((pair for pair in pairs if pair[0] != pair[1]), (repr(first), repr(second)))
    return repr(first), repr(second)


def metrics_text(metrics: object) -> str:
    """Return metrics by name on one line, without spaces inside of one.

    Example:
        >>> metrics_text({"loss": 0.25, "eval/accuracy": 1 / 3})
        'loss=0.25 eval/accuracy=0.3333'
    """
    if not isinstance(metrics, Mapping):
        return ""
    return " ".join(f"{printable(name)}={number(value)}" for name, value in metrics.items())
