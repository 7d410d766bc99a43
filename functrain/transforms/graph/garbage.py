"""Python's garbage collector while graphs are made."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

_MANY = (100_000, 50, 100)
_LOCK = threading.Lock()
_BEFORE: list[tuple[int, int, int]] = []  # one for each thread inside; the thresholds are shared


@contextlib.contextmanager
def fewer_collections() -> Iterator[None]:
    """Let Python look for garbage less often inside a ``with``.

    A compiler's modules and its graphs are a million objects that stay, and by default Python looks
    at all of them again and again: a fifth of the time.
    """
    with _LOCK:
        _BEFORE.append(_BEFORE[-1] if _BEFORE else gc.get_threshold())
        if _BEFORE[0][0]:  # 0 means never
            gc.set_threshold(*map(max, _BEFORE[0], _MANY))
    try:
        yield
    finally:
        with _LOCK:
            before = _BEFORE.pop()
            if not _BEFORE:
                gc.set_threshold(*before)
