"""Show progress: a live bar on terminals and in notebooks, a line per evaluation elsewhere."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rich.console import Console
from rich.live import Live

from functrain import metrics
from functrain.core.state import Counters
from functrain.errors.output import encodable
from functrain.metrics.by_member import text
from functrain.training import events
from functrain.training.progress.line import Line
from functrain.training.progress.output import (
    REFRESH_SECONDS,
    NotebookDisplay,
    continuing,
    evaluation_name,
    in_notebook,
    nothing_to_train,
)
from functrain.training.progress.throughput import Throughput

_TERMINAL_SECONDS = 0.2  # rich takes 1 ms to draw the bar
_NOTEBOOK_WIDTH = 120
_NOTEBOOK_LINES = 100
_FOR_THE_LOG = ("lr", "grad_norm", "update_ratio")  # also with the name of a group after a dot


class ProgressBar:
    """A listener that shows epoch, step, metrics, the last evaluation, speed and remaining time.

    ``fit`` has one by itself on terminals and in notebooks. Each evaluation prints a line, which
    stays above the bar; without a terminal or notebook there are only these lines. The bar leaves
    out what does not fit the width. It fetches metrics from the device only when it shows them,
    and estimates the remaining time from the speed of the present process, also after resuming.

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

    shows_progress: ClassVar[bool] = True

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._live: Live | None = None
        self._notebook: NotebookDisplay | None = None
        self._lines: list[str] = []  # above the bar of a notebook
        self._last: Mapping[str, Any] = {}
        self._metrics: tuple[str, ...] = ()
        self._evaluation = ""
        # Step, name and weights: a reference to the state would keep its memory alive.
        self._unprinted: tuple[int, str, str] | None = None
        self._shown = 0.0
        self._throughput: Throughput | None = None

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Start the bar at the step at which the run starts or resumes."""
        self.close()  # a bar that is left from a run that an exception ended
        counters = event.state.counters
        self._lines, self._last, self._metrics, self._evaluation = [], {}, (), ""
        self._throughput = Throughput(event.steps, counters, self.console.get_time)
        if event.ended is not None:
            self._print(nothing_to_train(event))
        elif event.resumed is not None:
            self._print(continuing(event))
        if self.console.is_jupyter:
            self._notebook = NotebookDisplay()
        elif self.console.is_terminal:
            self._live = _live(self.console)
            self._live.start()
        self._show(counters)

    def on_batch_end(self, event: events.BatchEnd) -> None:
        """Update the bar at most five times a second, in a notebook twice."""
        if not self._draws:
            return
        self._last = event.metrics
        now = self.console.get_time()
        if now - self._shown >= (REFRESH_SECONDS if self._notebook else _TERMINAL_SECONDS):
            self._shown = now
            self._metrics = _formatted(self._last)
            self._show(event.state.counters)

    def on_eval_end(self, event: events.EvalEnd) -> None:
        """Add the evaluation to the bar; it is printed when training goes on.

        The evaluation of the averaged weights is printed on the line of the raw ones.
        """
        values = "  ".join(text(name, value) for name, value in event.metrics.items())
        step = event.state.counters.step
        _, last, weights = self._unprinted or (0, "", "")
        if last == event.name and weights != event.weights:
            self._evaluation += f"  {event.weights}: {values}"
        else:
            self._print_evaluation()
            self._evaluation = f"{evaluation_name(event)}: {values}"
        self._unprinted = (step, event.name, event.weights)
        self._show(event.state.counters)

    def on_batch_begin(self, event: events.BatchBegin) -> None:
        """Print the evaluation of the step before, above the bar if there is one."""
        if self._unprinted is not None:
            self._print_evaluation()
            self._show(event.state.counters)

    def _print_evaluation(self) -> None:
        if self._unprinted is None:
            return
        step, self._unprinted = self._unprinted[0], None
        line = f"step {step}  {self._evaluation}"
        if self._notebook is None:
            self._print(line)
        else:
            self._lines = [*self._lines, line][-_NOTEBOOK_LINES:]

    def _print(self, line: str) -> None:
        shown = encodable(line, self.console.encoding)
        self.console.print(shown, soft_wrap=True, highlight=False, markup=False)

    def on_train_end(self, event: events.TrainEnd) -> None:
        """Stop the bar at its final state."""
        self._print_evaluation()
        if self._draws:
            self._metrics = _formatted(self._last)
        self._show(event.state.counters, ended=True)
        self.close()

    def close(self) -> None:
        """Release the terminal, also after an exception ended the run."""
        self._print_evaluation()
        if self._live is not None:
            self._live.stop()
        self._live = self._notebook = None

    @property
    def _draws(self) -> bool:
        return self._live is not None or self._notebook is not None

    def _show(self, counters: Counters, ended: bool = False) -> None:
        if not self._draws or self._throughput is None:
            return
        throughput = self._throughput
        line = Line(
            step=counters.step,
            steps=throughput.steps,
            epoch=counters.epoch + (counters.batch > 0),
            metrics=self._metrics,
            evaluation=self._evaluation,
            speed=throughput.smoothed(counters),
            seconds=throughput.seconds if ended else throughput.seconds_left(counters),
            ended=ended,
        )
        if self._live is not None:
            self._live.update(line, refresh=True)
        if self._notebook is not None:
            self._notebook.show("\n".join([*self._lines, _as_text(line)]))


def _live(console: Console) -> Live:
    """Return a place for the bar, below what the process prints to the terminal meanwhile."""
    # Only streams to a terminal may go through the console: a file must get what is printed to it.
    return Live(
        console=console,
        auto_refresh=False,
        redirect_stdout=sys.stdout.isatty(),
        redirect_stderr=sys.stderr.isatty(),
    )


def _formatted(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Format the loss and the user's metrics; rates and norms go to the log only."""
    shown = {
        name: value
        for name, value in values.items()
        if name.partition(".")[0] not in _FOR_THE_LOG and "/" not in name
    }
    (row,) = metrics.fetch([shown])
    return tuple(text(name, value) for name, value in row.items())


def _as_text(line: Line) -> str:
    """Return a line as text: rich itself needs ipywidgets in notebooks."""
    console = Console(
        file=io.StringIO(), width=_NOTEBOOK_WIDTH, color_system=None, force_jupyter=False
    )
    with console.capture() as captured:
        console.print(line)
    return captured.get().rstrip()


def default_bar(progress: bool | None, listeners: Any) -> list[Any]:
    """Return the bar that a run shows in addition to its listeners, or nothing."""
    # Not of an iterator, which can be read only once.
    given = listeners if isinstance(listeners, Sequence) else ()
    already = any(getattr(each, "shows_progress", False) for each in given)
    shown = _is_watched() and not already if progress is None else progress
    return [ProgressBar(Console(stderr=True))] if shown else []


def _is_watched() -> bool:
    """Return whether a person sees the standard error, of this thread alone."""
    if threading.current_thread() is not threading.main_thread():
        return False
    if "IPython" in sys.modules and in_notebook():
        return True
    stream = sys.stderr
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
