"""Curves that grow under the cell of a notebook while a run trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from functrain.errors import ConfigurationError
from functrain.listeners.notebook_display import REFRESH_SECONDS, NotebookDisplay, in_notebook
from functrain.listeners.rows import evaluation_name
from functrain.metrics.rows import fetch
from functrain.training import events
from functrain.view.display.growing import Series, html

Found = dict[str, dict[str, Series]]
# Of a long run drawing takes longer, and is done less often: it has at most this share of the time.
_SHARE = 0.05


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _some(_: Any, attribute: attrs.Attribute[Any], names: tuple[str, ...]) -> None:
    if not names:
        raise ConfigurationError("LiveCurves(metrics=...) needs the name of a metric at least")


@attrs.define(eq=False)
class LiveCurves:
    """A listener that draws metrics of steps and evaluations as they come, in notebooks only.

    The picture changes twice a second at the most, and only then metrics are fetched from the
    device, all since the last time at once. Anywhere but in a notebook it does nothing; curves of
    a run that has ended are ``run.history.plot()``.

    Args:
        metrics: names; those of evaluations are found by the same names.
        clock: seconds.

    Raises:
        ConfigurationError: no metric is named.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> live = [LiveCurves("loss")]
        >>> run = ft.fit(program, [torch.ones(4, 2)], until="3 steps", listeners=live)
    """

    metrics: tuple[str, ...] = attrs.field(default=("loss",), converter=_names, validator=_some)
    clock: Callable[[], float] = attrs.field(default=time.monotonic, kw_only=True)
    _place: NotebookDisplay | None = attrs.field(init=False, default=None)
    _next: float = attrs.field(init=False, default=0.0)
    _waiting: list[dict[str, Any]] = attrs.field(init=False, factory=list)
    _found: Found = attrs.field(init=False, factory=dict)

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Begin an empty picture, which is shown with the first values."""
        self._waiting, self._found = [], {name: {} for name in self.metrics}
        self._place = NotebookDisplay() if in_notebook() else None
        self._next = self.clock() + REFRESH_SECONDS

    def on_batch_end(self, event: events.BatchEnd) -> None:
        """Keep the metrics where they are, and draw if it is time."""
        if self._place is None:
            return
        chosen = {name: event.metrics[name] for name in self.metrics if name in event.metrics}
        self._waiting.append({"step": event.state.counters.step, **chosen})
        if self.clock() >= self._next:
            self._show()

    def on_eval_end(self, event: events.EvalEnd) -> None:
        """Add the points of an evaluation to the next picture."""
        if self._place is None:
            return
        step, prefix = event.state.counters.step, evaluation_name(event)
        for name in self.metrics:
            if name in event.metrics:
                self._add(name, f"{prefix}/{name}", step, event.metrics[name])

    def on_train_end(self, event: events.TrainEnd) -> None:
        """Draw all of it and let it stand."""
        self.close()

    def close(self) -> None:
        """Draw what there is, also where an exception ended the run."""
        if self._place is not None:
            self._show()
        self._place = None

    def _add(self, name: str, label: str, step: int, value: float) -> None:
        steps, values = self._found[name].setdefault(label, ([], []))
        steps.append(step)
        values.append(value)

    def _show(self) -> None:
        begun = self.clock()
        waiting, self._waiting = self._waiting, []
        for row in fetch(waiting):
            for name in self.metrics:
                if name in row:
                    self._add(name, name, row["step"], row[name])
        if self._place is not None and any(self._found.values()):
            found = {name: _training_first(name, series) for name, series in self._found.items()}
            self._place.show(_in_words(found), html(found))
        now = self.clock()
        self._next = now + max(REFRESH_SECONDS, (now - begun) / _SHARE)


def _training_first(name: str, series: dict[str, Series]) -> dict[str, Series]:
    """The series of a metric in the order in which they are drawn."""
    return dict(sorted(series.items(), key=lambda item: item[0] != name))


def _in_words(found: Found) -> str:
    """The last value of each series."""
    lines = (
        f"{label} {values[-1]:.4g} at step {steps[-1]}"
        for series in found.values()
        for label, (steps, values) in series.items()
    )
    return "\n".join(lines)
