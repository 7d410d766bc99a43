"""A line on the terminal while a step compiles."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

_QUIET = 2.0  # seconds in which nothing is shown
_EVERY = 1.0
_CLEAR = "\r\x1b[2K"  # to the beginning of the line, and erase it


@contextlib.contextmanager
def waiting_line(what: str, quiet: float = _QUIET) -> Iterator[None]:
    """Show one line on the terminal while the body of a ``with`` runs, and erase it at the end.

    Nothing is shown where standard error is no terminal, nor in threads other than the main one.
    """
    # A live bar replaces the stream by one that holds text back until the end of a line.
    stream: Any = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
    watched = stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    if not watched or threading.current_thread() is not threading.main_thread():
        yield
        return
    ended = threading.Event()
    writer = threading.Thread(target=_write, args=(stream, what, quiet, ended), daemon=True)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()


def _write(stream: Any, what: str, quiet: float, ended: threading.Event) -> None:
    began = time.monotonic()
    if ended.wait(quiet):
        return
    while True:
        stream.write(f"{_CLEAR}{what}, {time.monotonic() - began:.0f} s")
        stream.flush()
        if ended.wait(_EVERY):
            break
    stream.write(_CLEAR)
    stream.flush()
