"""A run of a tracker with the methods of Weights & Biases: ``log(metrics, step)``, ``finish``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from functrain.metrics.log_file import Row


@attrs.define(eq=False)
class StepsRun:
    """A destination that logs row by row.

    Args:
        begin: (name of the run to continue, or ``None``) -> (run, its name).
    """

    begin: Callable[[str | None], tuple[Any, str]]
    run: Any = None
    step: int = 0

    def open(self, after: int, run: str | None) -> str:
        """Begin a run, or continue the one of this name."""
        self.run, name = self.begin(run)
        self.step = after
        return name

    def write(self, rows: list[Row]) -> None:
        """Log rows, except those that a failed attempt has already logged."""
        for row in rows:
            if row["step"] > self.step:
                metrics = {name: value for name, value in row.items() if name != "step"}
                self.run.log(metrics, step=row["step"])
                self.step = row["step"]

    def flush(self) -> None:
        """Do nothing: the tracker writes in a process of its own."""

    def close(self) -> None:
        """Finish the run; it may be continued later."""
        self.run.finish()
