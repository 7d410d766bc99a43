"""Output of a notebook cell that can be replaced."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from functrain.errors.optional import require

# Replace the output at most this often: each update is a round trip to the browser.
REFRESH_SECONDS = 0.5


def in_notebook() -> bool:
    """Return whether the process is a notebook kernel, without importing IPython."""
    return Console().is_jupyter


class NotebookDisplay:
    """Cell output that each call of :meth:`show` replaces. It needs IPython, but no widgets."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str, html: str | None = None) -> None:
        """Display content in place of the previous one."""
        content = {"text/plain": text} | ({} if html is None else {"text/html": html})
        if self._handle is None:
            display = require("IPython.display", "notebooks").display
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)
