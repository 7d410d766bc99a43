"""The rows of a run as a listener sees them: those of ``metrics.jsonl``, name for name."""

from __future__ import annotations

from typing import Any

import attrs

from functrain import metrics
from functrain.training import events
from functrain.training.metrics_log import Row


def evaluation_name(event: events.EvalEnd | events.EvalBegin) -> str:
    """What the metrics of an evaluation are called in the log: ``eval``, or ``eval/ema``."""
    return event.name if event.weights == "params" else f"{event.name}/{event.weights}"


def nothing_to_train(event: events.TrainBegin) -> str:
    """A line about a run that had ended before it was called again."""
    where = "" if event.resumed is None else f" in {event.resumed.parent}"
    step = event.state.counters.step
    return f"nothing to train: the run{where} ended at step {step} already ({event.ended})"


@attrs.define(eq=False)
class Rows:
    """Rows on their way to a sink: settled ones, and that of the last step, which may grow.

    The row of a step is settled when the next step has been made, or the run has ended; until then
    means of the epoch and evaluations are put into it. Metrics stay on their device until they are
    taken.

    Attributes:
        settled: rows that are complete and wanted.
        last: that of the last step.
        wanted: whether ``last`` is to be kept; the rows of steps in between are not.
    """

    settled: list[Row] = attrs.field(factory=list)
    last: Row | None = None
    wanted: bool = False

    def add(self, event: events.BatchEnd, wanted: bool) -> None:
        """Take the row of a step."""
        if self.wanted and self.last is not None:
            self.settled.append(self.last)
        counters = event.state.counters
        epoch = counters.epoch if counters.batch else counters.epoch - 1  # it has turned already
        self.last = {"step": counters.step, "epoch": epoch, **event.metrics}
        self.wanted = wanted

    def extend(self, prefix: str, values: dict[str, float]) -> None:
        """Put more into the row of the last step, which is wanted now."""
        if self.last is not None:
            self.last.update({f"{prefix}/{name}": value for name, value in values.items()})
            self.wanted = True

    def settle(self) -> None:
        """The run has ended, and the last row with it."""
        if self.wanted and self.last is not None:
            self.settled.append(self.last)
        self.last, self.wanted = None, False

    def fetch(self) -> list[Row]:
        """The settled rows as numbers, with one transfer from the device for all of them."""
        self.settled = metrics.fetch(self.settled)
        return self.settled

    def state_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        last = None if self.last is None else metrics.fetch([self.last])[0]
        return {"settled": self.fetch(), "last": last, "wanted": self.wanted}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Rows:
        """The rows that :meth:`state_dict` described."""
        return cls(list(state["settled"]), state["last"], state["wanted"])
