"""Progress on the console: a bar where a person watches, a line an evaluation where none does."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from functrain import events

_REFRESH_SECONDS = 0.1


class ProgressBar:
    """A listener that shows epoch, step, remaining time, loss and the last evaluation.

    On a terminal and in notebooks it is a live bar; elsewhere each evaluation prints one line.
    Metrics are fetched from the device only when something is shown.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._progress: Progress | None = None
        self._task: Any = None
        self._measured = ""
        self._shown = 0.0

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Begin where the run begins, also within a resumed one."""
        step = event.state.counters.step
        if event.resumed is not None:
            self.console.print(f"continuing from step {step} ({event.resumed})", soft_wrap=True)
        if not (self.console.is_terminal or self.console.is_jupyter):
            return
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=self.console,
            auto_refresh=False,
        )
        self._task = self._progress.add_task(
            "train",
            total=event.steps,
            completed=step,
            epoch=event.state.counters.epoch,
            metrics="",
        )
        self._progress.start()

    def on_batch_end(self, event: events.BatchEnd) -> None:
        """Move the bar, at most ten times a second."""
        now = time.monotonic()
        if self._progress is None or now - self._shown < _REFRESH_SECONDS:
            return
        self._shown = now
        self._show(event.state.counters, f"loss {event.metrics['loss'].item():.4g}")

    def on_eval_end(self, event: events.EvalEnd) -> None:
        """Remember the evaluation for the bar, or print it."""
        name = event.name if event.weights == "params" else f"{event.name}/{event.weights}"
        values = "  ".join(f"{key} {value:.4g}" for key, value in event.metrics.items())
        self._measured = f"{name}: {values}"
        if self._progress is None:
            step = event.state.counters.step
            self.console.print(f"step {step}  {self._measured}", soft_wrap=True, highlight=False)

    def on_train_end(self, event: events.TrainEnd) -> None:
        """Leave the bar as it stands."""
        self._show(event.state.counters, "")
        self.close()

    def close(self) -> None:
        """Give the terminal back, also where an exception ended the run."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _show(self, counters: Any, loss: str) -> None:
        if self._progress is not None:
            text = "  ".join(part for part in (loss, self._measured) if part)
            self._progress.update(
                self._task, completed=counters.step, epoch=counters.epoch, metrics=text
            )
            self._progress.refresh()
