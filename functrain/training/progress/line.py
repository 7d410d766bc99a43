"""The one line of a progress bar, with as many parts as fit."""

from __future__ import annotations

from typing import Any

import attrs
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar as Track
from rich.table import Table
from rich.text import Text

from functrain.errors.output import encodable
from functrain.training.progress.throughput import clock_text

_TRACKS = (24, 10)  # widths of the bar itself, the first that fits
_GAP = 2


@attrs.frozen
class Line:
    """Where a run stands; rich renders it in one line of any width.

    Attributes:
        step: updates made.
        steps: the last of them, where known.
        epoch: the present epoch, from 1.
        metrics: of the last step shown, formatted, the loss first.
        evaluation: the last one, formatted.
        seconds: the time left; of a run that has ended, the time it took.
        ended: whether the run has ended.
    """

    step: int
    steps: int | None
    epoch: int
    metrics: tuple[str, ...] = ()
    evaluation: str = ""
    speed: float | None = None
    seconds: float | None = None
    ended: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown, track = self._fitting(options.max_width)
        grid = Table.grid(padding=(0, _GAP, 0, 0))
        cut: Any = "crop" if options.ascii_only else "ellipsis"
        cells: list[Any] = [
            Text(encodable(text, options.encoding), no_wrap=True, overflow=cut) for text in shown
        ]
        if track:
            total = None if self.steps is None else float(self.steps)
            cells.insert(1, Track(total=total, completed=self.step, width=track, pulse=False))
        for _ in cells:
            grid.add_column(no_wrap=True)
        grid.add_row(*cells)
        yield grid

    def _fitting(self, width: int) -> tuple[list[str], int]:
        """Return the texts that fit, and the width of the bar; what says least goes first."""
        loss, *others = self.metrics or ("",)
        step = f"{self.step}/{'?' if self.steps is None else self.steps}"
        epoch, evaluation = f"epoch {self.epoch}", self.evaluation
        speed = "" if self.speed is None else f"{short(self.speed)} samples/s"
        time = "" if self.seconds is None else clock_text(self.seconds)
        time = time and (f"in {time}" if self.ended else f"{time} left")
        choices = [
            ([epoch, step, loss, *others, evaluation, speed, time], _TRACKS[0]),
            ([epoch, step, loss, *others, evaluation, speed, time], _TRACKS[1]),
            ([epoch, step, loss, evaluation, speed, time], _TRACKS[1]),
            ([epoch, step, loss, *others, speed, time], _TRACKS[1]),
            ([epoch, step, loss, speed, time], _TRACKS[1]),
            ([epoch, step, loss, speed, time], 0),
            ([epoch, step, loss, time], 0),
            ([epoch, step, loss], 0),
            ([step, loss], 0),
        ]
        for parts, track in choices:
            texts = [part for part in parts if part]
            needed = sum(map(len, texts)) + _GAP * (len(texts) + bool(track)) + track
            if needed <= width:
                return texts, track
        return [part for part in (step, loss) if part], 0


def short(value: float) -> str:
    """Format a number in three digits, with a prefix for thousands."""
    prefix = ""
    for larger in ("k", "M", "G"):
        if value >= 999.5:
            value, prefix = value / 1000, larger
    return f"{value:.3g}{prefix}"
