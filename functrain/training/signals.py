"""Defer SIGINT and SIGTERM to the end of a step."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from functrain.distributed.launch import is_launched

# A launcher forwards a signal that the system, or a scheduler, may have sent to its processes too.
_SAME_EVENT = 1.0


class Interrupts:
    """A context in which a first SIGINT or SIGTERM is only noted.

    The loop asks at step boundaries. A second signal of the same kind does what it did before the
    context: a KeyboardInterrupt, or the end of the process. But where a launcher started this
    process, signals within a second are one. Outside the main thread, where Python allows no
    handlers, nothing is caught.

    Attributes:
        received: name of the received signal, or ``None``.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[int, Any] = {}
        self._first: dict[int, float] = {}
        self._same_event = _SAME_EVENT if is_launched(os.environ) else 0.0

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._first and self._same_event:  # a copy of the last signal may be on its way
            time.sleep(max(0.0, self._left(max(self._first.values()))))
        for number, handler in self._previous.items():
            # None stands for a handler that was not set from Python; it cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Note a first signal, and its copies. Then, or after it, do as before the context."""
        self.received = signal.Signals(number).name
        again = number in self._first
        first = self._first.setdefault(number, time.monotonic())
        if self._left(first) > 0:
            return
        signal.signal(number, self._previous[number] or signal.SIG_DFL)
        if again:
            signal.raise_signal(number)

    def _left(self, first: float) -> float:
        """Return for how long another signal counts as the first one."""
        return first + self._same_event - time.monotonic()
