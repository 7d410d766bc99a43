"""Texts for outputs whose encoding lacks some characters."""

from __future__ import annotations

import sys

# Characters that functrain prints and ASCII lacks.
_ASCII = {"±": "+-", "…": "...", "─": "-", "│": "|", "├": "|", "└": "`"}


def spelled_out(text: str) -> str:
    r"""Return text in ASCII, for an output that takes no more.

    Example:
        >>> spelled_out("0.5 ± 0.1, µ")
        '0.5 +- 0.1, \\u00b5'
    """
    plain = "".join(_ASCII.get(char, char) for char in text)
    return plain.encode("ascii", "backslashreplace").decode().replace("\\x", "\\u00")


def encodable(text: str, encoding: str | None) -> str:
    """Return text as it is, or spelled out where an output of this encoding cannot show it."""
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return spelled_out(text)
    return text


def print_line(line: str) -> None:
    """Print a line on the standard output, whatever its encoding."""
    print(encodable(line, getattr(sys.stdout, "encoding", None)), flush=True)
