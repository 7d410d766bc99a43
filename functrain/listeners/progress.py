"""Show progress: a live bar on terminals and in notebooks, a line per evaluation elsewhere."""

from __future__ import annotations

import io
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

from functrain import metrics
from functrain.core.state import Counters
from functrain.errors.calls import explained
from functrain.listeners.event_text import evaluation_name, nothing_to_train
from functrain.listeners.notebook_display import REFRESH_SECONDS, NotebookDisplay
from functrain.training import events

_TERMINAL_SECONDS = 0.2  # rich takes 1 ms to draw the bar
_NOTEBOOK_WIDTH = 120
_FOR_THE_LOG = ("lr", "grad_norm", "update_ratio")  # also with the name of a group after a dot


@explained
class ProgressBar:
    """A listener that shows epoch, step, remaining time, metrics and the last evaluation.

    On a terminal and in notebooks it is a live bar; elsewhere each evaluation prints one line.
    It fetches metrics from the device only when it shows them. It estimates the remaining time
    from the speed of the present process, also after resuming.

    Args:
        console: the console to print to, by default the standard output.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: model(batch).square().mean() * 0
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> data, bar = [torch.ones(4, 2)] * 2, ProgressBar(Console(force_terminal=False))
        >>> run = ft.fit(program, data, until="2 epochs", eval_data=data, listeners=[bar])
        step 2  eval: loss 0
        step 4  eval: loss 0
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._progress: Progress | None = None
        self._notebook: NotebookDisplay | None = None
        self._task: Any = None
        self._evaluation = ""
        self._shown = 0.0

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Start the bar at the step at which the run starts or resumes."""
        self.close()  # a bar that is left from a run that an exception ended
        step, self._evaluation = event.state.counters.step, ""
        if event.ended is not None:
            self.console.print(nothing_to_train(event), soft_wrap=True)
        elif event.resumed is not None:
            self.console.print(f"continuing from step {step} ({event.resumed})", soft_wrap=True)
        if not (self.console.is_terminal or self.console.is_jupyter):
            return
        in_notebook = self.console.is_jupyter
        self._progress = _bar(_capturing_console(self.console) if in_notebook else self.console)
        self._task = self._progress.add_task(
            "train",
            total=event.steps,
            completed=step,
            epoch=event.state.counters.epoch,
            metrics="",
        )
        if in_notebook:
            self._notebook = NotebookDisplay()
        else:
            self._progress.start()
        self._show(event.state.counters, "")

    def on_batch_end(self, event: events.BatchEnd) -> None:
        """Update the bar at most five times a second, in a notebook twice."""
        if self._progress is None:
            return
        now = self.console.get_time()
        if now - self._shown >= (REFRESH_SECONDS if self._notebook else _TERMINAL_SECONDS):
            self._shown = now
            self._show(event.state.counters, _format_metrics(event.metrics))

    def on_eval_end(self, event: events.EvalEnd) -> None:
        """Show the evaluation beside the bar, or print it."""
        values = "  ".join(f"{key} {value:.4g}" for key, value in event.metrics.items())
        self._evaluation = f"{evaluation_name(event)}: {values}"
        if self._progress is None:
            step = event.state.counters.step
            self.console.print(f"step {step}  {self._evaluation}", soft_wrap=True, highlight=False)

    def on_train_end(self, event: events.TrainEnd) -> None:
        """Stop the bar at its final state."""
        self._show(event.state.counters, "")
        self.close()

    def close(self) -> None:
        """Release the terminal, also after an exception ended the run."""
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._notebook = None

    def _show(self, counters: Counters, live: str) -> None:
        if self._progress is None:
            return
        text = "  ".join(part for part in (live, self._evaluation) if part)
        self._progress.update(
            self._task, completed=counters.step, epoch=counters.epoch, metrics=text
        )
        if self._notebook is None:
            self._progress.refresh()
        else:
            self._notebook.show(_as_text(self._progress))


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}"),
        console=console,
        auto_refresh=False,
    )


def _format_metrics(values: Any) -> str:
    """Format the loss and the user's metrics; rates and norms go to the log only."""
    shown = {
        name: value
        for name, value in values.items()
        if name.partition(".")[0] not in _FOR_THE_LOG and "/" not in name
    }
    (row,) = metrics.fetch([shown])
    return "  ".join(f"{name} {value:.4g}" for name, value in row.items())


def _capturing_console(console: Console) -> Console:
    """Return a console that prints to memory: rich itself needs ipywidgets in notebooks."""
    return Console(
        file=io.StringIO(),
        width=_NOTEBOOK_WIDTH,
        color_system=None,
        force_jupyter=False,
        get_time=console.get_time,
    )


def _as_text(progress: Progress) -> str:
    with progress.console.capture() as captured:
        progress.console.print(progress.get_renderable())
    return captured.get().rstrip()
