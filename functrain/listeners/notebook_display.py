"""A place in the output of a notebook's cell whose content may change."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from functrain.errors.optional import require

# How often a place is written over at the most: each time goes to the browser and back.
REFRESH_SECONDS = 0.5


def in_notebook() -> bool:
    """Whether the process is the kernel of a notebook; nothing is imported to find out."""
    return Console().is_jupyter


class NotebookDisplay:
    """Content that is put in the place of the one before; it needs IPython, and no widgets."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str, html: str | None = None) -> None:
        """Display something, in the place of the last one.

        Args:
            text: plain, for where HTML is not shown.
            html: the same with more to see, or ``None``.
        """
        content = {"text/plain": text} | ({} if html is None else {"text/html": html})
        if self._handle is None:
            display = require("IPython.display", "notebooks").display
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)
