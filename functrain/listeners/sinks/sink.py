"""A sink: the listener that brings the rows of a run to a destination, each exactly once.

What differs between files and trackers is in a :class:`Destination`. When rows are fetched and
delivered, what a resumed run takes up, and what happens when a destination fails, is here.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

import attrs

from functrain.errors import ConfigurationError, LogError, MissingExtraError, SinkWarning
from functrain.errors.warning import warn
from functrain.listeners.intervals import Interval
from functrain.listeners.rows import Rows, evaluation_name
from functrain.training import events
from functrain.training.durations import Duration
from functrain.training.metrics_log import Row

_MOST_ROWS = 64
_MOST_SECONDS = 5.0
_MOST_HELD = 100_000  # rows kept for a destination that is away
# Mistakes of the one who wrote the call: they end the run at its beginning, whatever the sink.
_MISTAKES = (MissingExtraError, ConfigurationError, LogError)


class Destination(Protocol):
    """Where rows go. Its methods may raise anything; the sink decides what comes of it."""

    def open(self, after: int, run: str | None) -> str | None:
        """Begin, or go on.

        Args:
            after: the rows up to this step stay, those of later ones are to go.
            run: what :meth:`open` returned when the run that is resumed began.

        Returns:
            By what name a resumed run finds the place again, if it needs one.
        """
        ...

    def write(self, rows: list[Row]) -> None:
        """Write rows of numbers. After an exception the same are given again, with more."""
        ...

    def flush(self) -> None:
        """Make durable what was written."""
        ...

    def close(self) -> None:
        """Let go of it; it may be opened again."""
        ...


@attrs.define(eq=False)
class Sink:
    """A listener that delivers the rows of ``metrics.jsonl`` to a destination.

    Rows are gathered on the device, fetched together every 64 rows or 5 seconds, after an
    evaluation, with each checkpoint and at the end. A checkpoint holds what is not delivered
    yet and up to where the destination had it, so that a resumed run has every row once.

    A destination that fails is told of in one :class:`SinkWarning`; its rows are kept and tried
    again after the next evaluation or epoch, with the next checkpoint, and at the end.

    Args:
        destination: where to.
        name: what warnings call it.
        every: deliver the rows of these steps only, and those with an evaluation or the means of
            an epoch.
        required: a destination that fails ends the run instead.
    """

    destination: Destination
    name: str
    every: Duration | str = "1 step"
    required: bool = False

    rows: Rows = attrs.field(init=False, factory=Rows)
    after: int = attrs.field(init=False, default=0)
    run: str | None = attrs.field(init=False, default=None)
    _interval: Interval = attrs.field(init=False)
    _resumed: bool = attrs.field(init=False, default=False)
    _opened: bool = attrs.field(init=False, default=False)
    _failing: bool = attrs.field(init=False, default=False)
    _wanted_now: bool = attrs.field(init=False, default=False)
    _delivered: float = attrs.field(init=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        self._interval = Interval(self.every)

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Open the destination, before the first step, so that mistakes are told at once."""
        counters = event.state.counters
        self._interval.begin(counters, event.batches)
        if not self._resumed:
            self.rows, self.after, self.run = Rows(), counters.step, None
        self._resumed = self._failing = False
        self._deliver(self.required)

    def on_batch_end(self, event: events.BatchEnd) -> None:
        """Take the row of a step."""
        self.rows.add(event, self._interval.due(event.state.counters))
        waiting = len(self.rows.settled)
        if not waiting or (self._failing and not self._wanted_now):
            return
        late = time.monotonic() - self._delivered > _MOST_SECONDS
        if self._wanted_now or late or waiting >= _MOST_ROWS:
            self._deliver(self.required)

    def on_epoch_end(self, event: events.EpochEnd) -> None:
        """Put the means of an epoch into the row of its last step, as the log does."""
        if event.complete:
            self.rows.extend("epoch", dict(event.metrics))
            self._wanted_now = True

    def on_eval_end(self, event: events.EvalEnd) -> None:
        """Put an evaluation into the row of its step."""
        self.rows.extend(evaluation_name(event), dict(event.metrics))
        self._wanted_now = True

    def on_train_end(self, event: events.TrainEnd) -> None:
        """Deliver the rest."""
        self.close()

    def close(self) -> None:
        """Deliver the rest and let go, also where an exception ended the run."""
        self.rows.settle()
        if self._opened or self.rows.settled:
            self._deliver(self.required, durable=True)
        if self._opened:
            self._opened = False
            self._guarded(self.destination.close, self.required)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with; what was delivered before is durable now."""
        # An exception here would cost the checkpoint; a required sink fails at its next event.
        self._deliver(raises=False, durable=True)
        kind, rows = type(self.destination).__name__, self.rows.state_dict()
        return {"sink": kind, "after": self.after, "run": self.run, "rows": rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            ConfigurationError: it is the state of another kind of listener.
        """
        kind = type(self.destination).__name__
        if state.get("sink") != kind:
            raise ConfigurationError(
                f"under the name {self.name} the checkpoint has the state of a "
                f"{state.get('sink', 'listener of another kind')}; give one of them another name"
            )
        self.rows, self.after, self.run = Rows.of(state["rows"]), state["after"], state["run"]
        self._resumed = True

    def _deliver(self, raises: bool, durable: bool = False) -> None:
        if self._guarded(lambda: self._write(durable), raises):
            self._failing = False
        self._wanted_now, self._delivered = False, time.monotonic()

    def _write(self, durable: bool) -> None:
        if not self._opened:
            self.run = self.destination.open(self.after, self.run)
            self._opened = True
        rows = self.rows.fetch()
        if rows:
            self.destination.write(rows)
            self.after, self.rows.settled = rows[-1]["step"], []
        if durable:
            self.destination.flush()

    def _guarded(self, action: Any, raises: bool) -> bool:
        """Whether it went well."""
        try:
            action()
        except _MISTAKES:
            raise
        except Exception as error:  # not hidden: told in a warning that names the place
            if raises:
                raise
            self._warn(error)
            return False
        return True

    def _warn(self, error: Exception) -> None:
        excess = len(self.rows.settled) - _MOST_HELD
        if excess > 0:
            del self.rows.settled[:excess]
        if self._failing and excess <= 0:
            return
        self._failing = True
        step = self.after if self.rows.last is None else self.rows.last["step"]
        lost = f"; the oldest {excess} rows that waited for it are lost" if excess > 0 else ""
        warn(
            f"{self.name} could not be written to at step {step}: {type(error).__name__}: {error}. "
            f"Training goes on, and it is tried again{lost}",
            SinkWarning,
        )
