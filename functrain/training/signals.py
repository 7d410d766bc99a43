"""Defer SIGINT and SIGTERM to the end of a step."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """A context in which a first SIGINT or SIGTERM is only noted.

    The loop asks at step boundaries. A second signal of the same kind does what it did before the
    context: a KeyboardInterrupt, or the end of the process. Outside the main thread, where Python
    allows no handlers, nothing is caught.

    Attributes:
        received: name of the received signal, or ``None``.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            # None stands for a handler that was not set from Python; it cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        signal.signal(number, self._previous[number] or signal.SIG_DFL)
