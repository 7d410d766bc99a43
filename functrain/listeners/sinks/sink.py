"""A sink: a listener that writes the rows of a run to a destination, each exactly once.

A :class:`Destination` is a file or a tracker. The :class:`Sink` decides when to fetch and write
rows, how to resume, and how to handle errors of the destination.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

import attrs

from functrain.errors import ConfigurationError, LogError, MissingExtraError, SinkWarning
from functrain.errors.base import warn
from functrain.errors.calls import explained
from functrain.listeners.intervals import Interval
from functrain.listeners.sinks.media import Medium
from functrain.listeners.sinks.row_buffer import RowBuffer
from functrain.metrics.by_member import flat
from functrain.metrics.log_file import Row
from functrain.training import events
from functrain.training.progress.output import evaluation_name

_MOST_ROWS = 64
_MOST_SECONDS = 5.0
_MOST_HELD = 100_000  # rows kept while a destination is unavailable
# The user must fix these, so they end the run at its beginning, ``required`` or not.
_MISTAKES = (MissingExtraError, ConfigurationError, LogError)


class Destination(Protocol):
    """A place for rows. Its methods may raise any exception; the sink handles it.

    It may also have ``configure(config)``, which the sink calls before :meth:`open` with the
    configuration of the run as plain data, ``last_step()``, the step of its last row, and
    ``write_media(medium)``, which takes a text or an image
    (:class:`functrain.listeners.sinks.media.Medium`) after the row of its step.
    """

    def open(self, after: int, run: str | None) -> str | None:
        """Begin, or continue.

        Args:
            after: keep the rows up to this step, and remove later ones.
            run: for a resumed run, the result of the first :meth:`open`.

        Returns:
            An identifier for resuming, if the destination needs one.
        """
        ...

    def write(self, rows: list[Row]) -> None:
        """Write rows of numbers. After an exception the next call repeats them, with new ones.

        A metric of a population has a name for each member, such as ``loss/3``; a destination with
        the attribute ``takes_lists`` is given lists, as ``metrics.jsonl`` has them.
        """
        ...

    def flush(self) -> None:
        """Make the written rows durable."""
        ...

    def close(self) -> None:
        """Close the destination; it may be opened again."""
        ...


@explained
@attrs.define(eq=False)
class Sink:
    """A listener that writes the rows of ``metrics.jsonl`` to a destination.

    Rows stay on the device until the sink fetches them together: every 64 rows or 5 seconds,
    after an evaluation, with each checkpoint and at the end. A checkpoint holds the rows that are
    not written yet and the last step that is, so a resumed run writes every row once.

    If the destination fails, the sink warns once with :class:`SinkWarning`, keeps the rows and
    tries again after the next evaluation or epoch, with the next checkpoint, and at the end.

    Args:
        destination: the destination of the rows.
        name: the name of the sink in warnings.
        every: the interval; rows with an evaluation or epoch means are always written.
        required: raise errors of the destination instead of warning.
    """

    destination: Destination
    name: str
    every: Interval = attrs.field(default=Interval("1 step"), converter=Interval)
    required: bool = False

    rows: RowBuffer = attrs.field(init=False, factory=RowBuffer)
    after: int = attrs.field(init=False, default=0)
    run: str | None = attrs.field(init=False, default=None)
    _resumed: bool = attrs.field(init=False, default=False)
    _begun: bool = attrs.field(init=False, default=False)
    _opened: bool = attrs.field(init=False, default=False)
    _failing: bool = attrs.field(init=False, default=False)
    _wanted_now: bool = attrs.field(init=False, default=False)
    _last_write: float = attrs.field(init=False, default=0.0)

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Open the destination before the first step, so that mistakes show at once."""
        counters = event.state.counters
        self.every.begin(counters, event.batches)
        if not self._resumed:
            self.rows, self.after, self.run = RowBuffer(), counters.step, None
        self._resumed = self._failing = False
        self._begun = True
        if hasattr(self.destination, "configure"):
            self.destination.configure(event.config)
        if event.ended is not None:
            self._drop_written()
        if event.ended is None or self.rows.last or self.rows.complete or self.rows.media:
            self._write_or_warn(self.required)

    def _drop_written(self) -> None:
        """Drop the rows that a file has already, so that a run with nothing to train leaves it."""
        last = getattr(self.destination, "last_step", lambda: -1)()
        self.rows.complete = [row for row in self.rows.complete if row["step"] > last]
        if self.rows.last is not None and self.rows.last["step"] <= last:
            self.rows.last, self.rows.wanted = None, False

    def on_batch_end(self, event: events.BatchEnd) -> None:
        """Add the row of a step."""
        self.rows.add(event, self.every.due(event.state.counters))
        if self.rows.complete:
            self.write_if_due()

    def write_if_due(self) -> None:
        """Write the complete rows if they are many, old, or asked for."""
        waiting = len(self.rows.complete)
        if not waiting or (self._failing and not self._wanted_now):
            return
        late = time.monotonic() - self._last_write > _MOST_SECONDS
        if self._wanted_now or late or waiting >= _MOST_ROWS:
            self._write_or_warn(self.required)

    def on_epoch_end(self, event: events.EpochEnd) -> None:
        """Add the means of an epoch to the row of its last step, as the log does."""
        if event.complete:
            self.rows.extend("epoch", dict(event.metrics))
            self._wanted_now = True

    def on_eval_end(self, event: events.EvalEnd) -> None:
        """Add an evaluation to the row of its step."""
        self.rows.extend(evaluation_name(event), dict(event.metrics))
        self._wanted_now = True

    def add_media(self, media: Sequence[Medium]) -> None:
        """Write texts and images with the row of the last step.

        Raises:
            ConfigurationError: the sink is not among the listeners of the run.
        """
        if not self._begun:
            raise ConfigurationError(
                f"{self.name} is no listener of this run: list it before Media, "
                "listeners=[sink, Media(..., to=sink)]"
            )
        self.rows.media.extend(media)

    def on_train_end(self, event: events.TrainEnd) -> None:
        """Write the rest."""
        self.close()

    def close(self) -> None:
        """Write the rest and close, also after an exception ended the run."""
        self.rows.finish()
        if self._opened or self.rows.complete or self.rows.media:
            self._write_or_warn(self.required, durable=True)
        self._begun = False
        if self._opened:
            self._opened = False
            self._guarded(self.destination.close, self.required)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows that are not written yet, after making the others durable."""
        # An exception here would lose the checkpoint; a required sink fails at its next event.
        self._write_or_warn(raises=False, durable=True)
        kind, rows = type(self.destination).__name__, self.rows.state_dict()
        return {"sink": kind, "after": self.after, "run": self.run, "rows": rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the rows that are not written yet.

        Raises:
            ConfigurationError: the state belongs to another kind of listener.
        """
        kind = type(self.destination).__name__
        if state.get("sink") != kind:
            raise ConfigurationError(
                f"under the name {self.name} the checkpoint has the state of a "
                f"{state.get('sink', 'listener of another kind')}; give one of them another name"
            )
        self.rows, self.after, self.run = RowBuffer.of(state["rows"]), state["after"], state["run"]
        self._resumed = True

    def _write_or_warn(self, raises: bool, durable: bool = False) -> None:
        if self._guarded(lambda: self._write(durable), raises):
            self._failing = False
        self._wanted_now, self._last_write = False, time.monotonic()

    def _write(self, durable: bool) -> None:
        if not self._opened:
            self.run = self.destination.open(self.after, self.run)
            self._opened = True
        for rows, media in self.rows.in_order():
            if rows:
                whole = getattr(self.destination, "takes_lists", False)
                self.destination.write(rows if whole else list(map(flat, rows)))
                self.after = rows[-1]["step"]
                del self.rows.complete[: len(rows)]
            if media is not None:
                self.destination.write_media(media)  # type: ignore[attr-defined]
                self.rows.media.remove(media)
        if durable:
            self.destination.flush()

    def _guarded(self, action: Any, raises: bool) -> bool:
        """Return whether the action succeeded."""
        try:
            action()
        except _MISTAKES:
            raise
        except Exception as error:  # not hidden: a warning names the destination
            if raises:
                raise
            self._warn(error)
            return False
        return True

    def _warn(self, error: Exception) -> None:
        excess = len(self.rows.complete) - _MOST_HELD
        if excess > 0:
            del self.rows.complete[:excess]
        if self._failing and excess <= 0:
            return
        self._failing = True
        step = self.after if self.rows.last is None else self.rows.last["step"]
        lost = f"; the oldest {excess} unwritten rows are lost" if excess > 0 else ""
        warn(
            f"could not write to {self.name} at step {step}: {type(error).__name__}: {error}. "
            f"Training continues, and functrain tries again{lost}",
            SinkWarning,
        )
