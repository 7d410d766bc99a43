"""Listeners that end a run early and have no state."""

from __future__ import annotations

import os
import signal
from typing import Any

import attrs

import functrain as ft


@attrs.frozen
class CutAt:
    """Stop the run after a step."""

    step: int

    def on_batch_end(self, event: Any) -> ft.Stop | None:
        return ft.Stop() if event.state.counters.step >= self.step else None


@attrs.define
class FailsAt:
    """Raise at the n-th event of any kind, or kill the process silently."""

    left: int
    kills: bool = False

    def _fail(self, event: Any) -> None:
        self.left -= 1
        if self.left == 0 and self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.left == 0:
            raise ZeroDivisionError("planned")

    on_batch_begin = on_batch_end = on_epoch_end = _fail
    on_eval_begin = on_eval_end = on_checkpoint_saved = _fail
