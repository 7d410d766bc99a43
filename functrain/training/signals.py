"""Defer SIGINT and SIGTERM to the end of a step, and say so at once."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
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

    Args:
        acknowledged: what the run does after a first signal, printed at once to the standard
            error; ``None`` prints nothing.
    """

    def __init__(self, acknowledged: str | None = None) -> None:
        self._acknowledged = acknowledged
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
        if not again:
            self._acknowledge()
        if self._left(first) > 0:
            return
        signal.signal(number, self._previous[number] or signal.SIG_DFL)
        if again:
            signal.raise_signal(number)

    def _acknowledge(self) -> None:
        if self._acknowledged is None:
            return
        again = "Ctrl-C again" if self.received == "SIGINT" else "another signal"
        if self._same_event:
            again += f" after {self._same_event:g} s"
        text = f"{self.received}: {self._acknowledged}; {again} to stop now"
        # torchrun passes signals on, and sends SIGKILL 30 s later.
        killed = "; torchrun kills ranks that take over 30 s"
        _print(text + (killed if "TORCHELASTIC_RUN_ID" in os.environ else ""))

    def _left(self, first: float) -> float:
        """Return for how long another signal counts as the first one."""
        return first + self._same_event - time.monotonic()


def _print(text: str) -> None:
    """Print a line from a signal handler, which may have interrupted another print."""
    stream = sys.stderr
    if stream is None:
        return
    if "IPython" in sys.modules and not isinstance(stream, io.TextIOWrapper):  # a notebook
        print(text, file=stream, flush=True)
        return
    # In place of a progress bar, or of the "^C" of the terminal. The bar appears again below.
    with contextlib.suppress(OSError):
        os.write(2, f"\r\x1b[2K{text}\n".encode() if os.isatty(2) else f"{text}\n".encode())
