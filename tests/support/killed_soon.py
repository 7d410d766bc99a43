"""A listener whose process is killed without warning, a moment after one of its steps."""

from __future__ import annotations

import os
import signal
import threading

import functrain as ft


class KilledSoon:
    """Kill the process so many seconds after the step that ``KILL="STEP SECONDS"`` names.

    Steps are counted from the start of the process; without the variable nothing happens.
    """

    def __init__(self) -> None:
        step, seconds = os.environ.get("KILL", "0 0").split()
        self.left, self.seconds = int(step), float(seconds)

    def on_batch_end(self, event: ft.events.BatchEnd) -> None:
        self.left -= 1
        if self.left == 0:
            kill = (os.getpid(), signal.SIGKILL)
            threading.Timer(self.seconds, os.kill, kill).start()
