"""The rows of a run on their way to a sink, named as in ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from functrain import metrics
from functrain.listeners.sinks.media import Medium
from functrain.metrics.log_file import Row
from functrain.training import events


@attrs.define(eq=False)
class RowBuffer:
    """Rows that wait to be written: complete ones, and the row of the last step.

    The last row is complete once the next step has been made or the run has ended. Until then it
    may gain epoch means and evaluations. Metrics stay on their device until they are fetched.

    Attributes:
        complete: rows to write that will not change any more.
        last: the row of the last step.
        wanted: whether to write ``last``; rows between two multiples of ``every`` are dropped.
        media: texts and images that wait for the row of their step, in order of steps.
    """

    complete: list[Row] = attrs.field(factory=list)
    last: Row | None = None
    wanted: bool = False
    media: list[Medium] = attrs.field(factory=list)

    def add(self, event: events.BatchEnd, wanted: bool) -> None:
        """Add the row of a step."""
        if self.wanted and self.last is not None:
            self.complete.append(self.last)
        counters = event.state.counters
        # At the end of an epoch the counter has already moved on to the next one.
        epoch = counters.epoch if counters.batch else counters.epoch - 1
        self.last = {"step": counters.step, "epoch": epoch, **event.metrics}
        self.wanted = wanted

    def extend(self, prefix: str, values: dict[str, float]) -> None:
        """Add metrics to the row of the last step, and mark it as wanted."""
        if self.last is not None:
            self.last.update({f"{prefix}/{name}": value for name, value in values.items()})
            self.wanted = True

    def finish(self) -> None:
        """Complete the last row at the end of a run."""
        if self.wanted and self.last is not None:
            self.complete.append(self.last)
        self.last, self.wanted = None, False

    def fetch(self) -> list[Row]:
        """Return the complete rows as numbers, with one transfer from the device for all."""
        self.complete = metrics.fetch(self.complete)
        return self.complete

    def in_order(self) -> Iterator[tuple[list[Row], Medium | None]]:
        """Yield what is complete in order of steps: rows, and a medium after the row of its step.

        Trackers that count steps refuse what is of an earlier step than their last.
        """
        rows = list(self.fetch())
        for medium in list(self.media):
            if self.last is not None and medium.step >= self.last["step"]:
                break
            before = [row for row in rows if row["step"] <= medium.step]
            rows = rows[len(before) :]
            yield before, medium
        if rows:
            yield rows, None

    def state_dict(self) -> dict[str, Any]:
        """Return all rows as plain values."""
        last = None if self.last is None else metrics.fetch([self.last])[0]
        media = [{"step": m.step, "name": m.name, "value": m.value} for m in self.media]
        return {"settled": self.fetch(), "last": last, "wanted": self.wanted, "media": media}

    @classmethod
    def of(cls, state: dict[str, Any]) -> RowBuffer:
        """Return the rows that :meth:`state_dict` described."""
        media = [Medium(**each) for each in state.get("media", ())]  # none in older checkpoints
        return cls(list(state["settled"]), state["last"], state["wanted"], media)
