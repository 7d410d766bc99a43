"""Draw curves below a notebook cell while a run trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import attrs

from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.metrics.log_file import Row
from functrain.metrics.rows import fetch
from functrain.plotting.chart import Chart, Options, chart_of
from functrain.plotting.columns import Columns
from functrain.training import events
from functrain.training.progress.output import (
    REFRESH_SECONDS,
    NotebookDisplay,
    evaluation_name,
    in_notebook,
)
from functrain.view.page import titled

# Drawing a long run takes longer, so it happens less often: at most this share of the time.
_SHARE = 0.05


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _some(_: Any, attribute: attrs.Attribute[Any], names: tuple[str, ...]) -> None:
    if not names:
        raise ConfigurationError("LiveCurves(metrics=...) needs at least one name")


@explained
@attrs.define(eq=False)
class LiveCurves:
    """A listener that draws metrics of steps and evaluations during training, in notebooks only.

    It draws at most twice a second, and only then fetches metrics from the device, all at once.
    Outside of a notebook it does nothing. To draw a run that has ended, use
    ``run.history.plot()``.

    Args:
        metrics: names, of steps and evaluations alike.
        clock: returns seconds.

    Raises:
        ConfigurationError: no metric is named.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> live = [LiveCurves("loss")]
        >>> run = ft.fit(program, [torch.ones(4, 2)], until="3 steps", listeners=live)
    """

    shows_progress: ClassVar[bool] = True  # in a notebook; fit adds no bar

    metrics: tuple[str, ...] = attrs.field(default=("loss",), converter=_names, validator=_some)
    clock: Callable[[], float] = attrs.field(default=time.monotonic, kw_only=True)
    _place: NotebookDisplay | None = attrs.field(init=False, default=None)
    _next: float = attrs.field(init=False, default=0.0)
    _pending: list[Row] = attrs.field(init=False, factory=list)
    _rows: list[Row] = attrs.field(init=False, factory=list)

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Start an empty figure; the first values make it appear."""
        self._pending, self._rows = [], []
        self._place = NotebookDisplay() if in_notebook() else None
        self._next = self.clock() + REFRESH_SECONDS

    def on_batch_end(self, event: events.BatchEnd) -> None:
        """Keep the metrics on their device, and draw if a refresh is due."""
        if self._place is None:
            return
        chosen = {name: event.metrics[name] for name in self.metrics if name in event.metrics}
        self._pending.append({"step": event.state.counters.step, **chosen})
        if self.clock() >= self._next:
            self._show()

    def on_eval_end(self, event: events.EvalEnd) -> None:
        """Add the points of an evaluation."""
        if self._place is None:
            return
        step, prefix = event.state.counters.step, evaluation_name(event)
        found = {name: event.metrics[name] for name in self.metrics if name in event.metrics}
        row = {f"{prefix}/{name}": value for name, value in found.items()}
        self._pending.append({"step": step, **row})

    def on_train_end(self, event: events.TrainEnd) -> None:
        """Draw the final figure."""
        self.close()

    def close(self) -> None:
        """Draw what there is, also after an exception ended the run."""
        if self._place is not None:
            self._show()
        self._place = None

    def _show(self) -> None:
        begun = self.clock()
        self._rows += fetch(self._pending)
        self._pending = []
        columns = Columns.of(self._rows)
        if self._place is not None and len(columns.names()) > 1:
            chart = chart_of({"": columns}, Options(metrics=("*",)))
            self._place.show(_as_text(chart), titled(chart))
        now = self.clock()
        self._next = now + max(REFRESH_SECONDS, (now - begun) / _SHARE)


def _as_text(chart: Chart) -> str:
    """Return the last value of each line as text."""
    lines = (line for panel in chart.panels for line in panel.lines)
    return "\n".join(f"{each.label} {each.y[-1]:.4g} at step {each.x[-1]:.0f}" for each in lines)
