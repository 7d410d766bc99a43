"""A run of a tracker with the interface of Weights & Biases: ``log(metrics, step)``, ``finish``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from functrain.training.metrics_log import Row


@attrs.define(eq=False)
class StepsRun:
    """A destination that logs row by row, by the step.

    Args:
        begin: (name or ``None`` of the run to go on with) -> (run, its name).
    """

    begin: Callable[[str | None], tuple[Any, str]]
    run: Any = None
    step: int = 0

    def open(self, after: int, run: str | None) -> str:
        """Begin a run, or go on with one under its name."""
        self.run, name = self.begin(run)
        self.step = after
        return name

    def write(self, rows: list[Row]) -> None:
        """Log rows, except those that an attempt that failed had logged already."""
        for row in rows:
            if row["step"] > self.step:
                metrics = {name: value for name, value in row.items() if name != "step"}
                self.run.log(metrics, step=row["step"])
                self.step = row["step"]

    def flush(self) -> None:
        """Nothing to be done: a process of the tracker's own writes what it was given."""

    def close(self) -> None:
        """Finish the run; it may be gone on with."""
        self.run.finish()
