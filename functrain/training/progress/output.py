"""The text of the first event of a run, and the output of a notebook cell."""

from typing import Any

from rich.console import Console

from functrain.errors.optional import require
from functrain.training import events


def evaluation_name(event: events.EvalEnd | events.EvalBegin) -> str:
    """Return the prefix of an evaluation's metrics in the log: ``eval``, or ``eval/ema``."""
    return event.name if event.weights == "params" else f"{event.name}/{event.weights}"


def nothing_to_train(event: events.TrainBegin) -> str:
    """Return a line that says that the run had already ended."""
    where = "" if event.resumed is None else f" in {event.resumed.parent}"
    step = event.state.counters.step
    return f"nothing to train: the run{where} already ended at step {step} ({event.ended})"


def continuing(event: events.TrainBegin) -> str:
    """Return a line that says from which checkpoint a run continues, without the whole path."""
    place = "" if event.resumed is None else "/".join(event.resumed.parts[-2:])
    return f"continuing from step {event.state.counters.step} ({place})"


# Replace the output at most this often: each update is a round trip to the browser.
REFRESH_SECONDS = 0.5


def in_notebook() -> bool:
    """Return whether the process is a notebook kernel, without importing IPython."""
    return Console().is_jupyter


class NotebookDisplay:
    """Cell output that each call of :meth:`show` replaces. It needs IPython, but no widgets."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str, html: str | None = None) -> None:
        """Display content in place of the previous one."""
        content = {"text/plain": text} | ({} if html is None else {"text/html": html})
        if self._handle is None:
            display = require("IPython.display", "notebooks").display
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)
