"""The messages of errors, and patterns of what they must say."""

from __future__ import annotations

import re


def message(error: BaseException) -> str:
    """Return what a traceback ends with: the message and its notes."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


def holds(text: str, pattern: str) -> bool:
    """Return whether a text has the parts of a pattern in their order, ``…`` for any text between.

    Example:
        >>> holds("clip_norm: expected a number > 0, got 'a'", "clip_norm … got 'a'")
        True
    """
    parts = map(re.escape, pattern.split(" … "))
    return re.search(".*".join(parts), text, re.DOTALL) is not None
