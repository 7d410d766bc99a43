"""Whether ``fit`` shows a bar by itself."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from typing import Any


def default_bar(progress: bool | None, listeners: Any) -> list[Any]:
    """Return the bar that a run shows in addition to its listeners, or nothing."""
    # Not of an iterator, which can be read only once.
    given = listeners if isinstance(listeners, Sequence) else ()
    already = any(getattr(each, "shows_progress", False) for each in given)
    shown = _is_watched() and not already if progress is None else progress
    if not shown:
        return []
    # rich takes 50 ms to import, which a run without a bar saves.
    from rich.console import Console

    from functrain.training.progress.bar import ProgressBar

    return [ProgressBar(Console(stderr=True))]


def _is_watched() -> bool:
    """Return whether a person sees the standard error, of this thread alone."""
    if threading.current_thread() is not threading.main_thread():
        return False
    if "IPython" in sys.modules:
        from functrain.training.progress.notebook_display import in_notebook

        if in_notebook():
            return True
    stream = sys.stderr
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
