"""The mutable state of one ``fit`` call and its outputs.

``saving.py`` gathers what a resumed run needs. The rest are effects: metrics log, checkpoints,
signals and the clock. The plan and the loop say what to do when.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from functrain.checkpoint import Checkpoints
from functrain.checkpoint.run_directory import used_by_one_run
from functrain.checkpoint.run_state import LoopState
from functrain.core.batch import Batch
from functrain.core.loss import Metrics
from functrain.core.state import Counters, TrainState, handed_out, is_lent, with_fields
from functrain.data import Source
from functrain.distributed.group import World
from functrain.metrics.log_file import Row
from functrain.training import events
from functrain.training.agreement import ALONE, any_rank, first
from functrain.training.checkpointer import Checkpointer
from functrain.training.decisions import Decisions
from functrain.training.dispatch import Listeners
from functrain.training.iteration import epoch_batches, sharing_of
from functrain.training.limits import Ending, Position
from functrain.training.metrics_log import Recorder
from functrain.training.one_model import in_fit
from functrain.training.plan import Plan
from functrain.training.signals import Interrupts


@attrs.define(eq=False, kw_only=True)
class Session:
    """The mutable state of one ``fit`` call and its outputs.

    Attributes:
        decisions: the rules for best, early stop and plateau; a pure reducer.
        source: the data; may have a state of its own.
        checkpointer: writes checkpoints, together with other ranks; ``None`` without a directory.
        train: the training state. Reading it forms it, after steps in one call.
        data_state: a loaded state that the source has not been given yet.
        position: where the run stands, in the units of durations.
        before: where it stood before its last step; ``None`` before the first one.
        limit: the limit reached there, if any.
        between_steps: false while a batch has been drawn and its step has not been made.
        stop: the request of a listener of this rank.
        interrupts: signals that this rank has received.
        requested: a request of a listener and a signal, of any rank, which all ranks have heard.
        recorder: buffers and writes the rows of the metrics log.
        best_state: the best state so far, where ``fit`` returns it and no checkpoint of this run
            holds it.
        first_step: the step at which this call began.
        first_skipped: how many of the steps before it were skipped.
        first_scale: the loss scale there; ``None`` without one.
        seconds_before: time trained before this call.
    """

    plan: Plan
    decisions: Decisions
    source: Source
    listeners: Listeners
    checkpointer: Checkpointer | None
    store: Checkpoints | None = None
    world: World = ALONE
    train: TrainState = attrs.field(init=False)
    loop: LoopState = attrs.field(init=False)
    data_state: Any = None
    position: Position = attrs.field(init=False)
    before: Position | None = None
    limit: Ending | None = None
    between_steps: bool = True
    stop: events.Stop | None = None
    interrupts: Interrupts = attrs.field(factory=Interrupts)
    requested: tuple[str | None, str | None] = (None, None)
    recorder: Recorder = attrs.field(factory=lambda: Recorder(None, []))
    best_state: TrainState | None = None
    first_step: int = 0
    first_skipped: Any = 0
    first_scale: Any = None
    seconds_before: float = 0.0
    _started: float = attrs.field(factory=time.monotonic)
    _exits: contextlib.ExitStack = attrs.field(factory=contextlib.ExitStack)

    def __enter__(self) -> Session:
        if self.checkpointer is not None:
            if self.leads:
                directory = self.checkpointer.store.directory
                self._exits.enter_context(used_by_one_run(directory))
            self._exits.enter_context(self.checkpointer.saver)
        self._exits.enter_context(self.interrupts)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        try:
            self._exits.__exit__(kind, error, traceback)
        finally:
            self.source.close()
            self.recorder.close()
            if error is not None:
                self.listeners.close(error)

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which has the files, the clock and most listeners."""
        return self.world.rank == 0

    @property
    def directory(self) -> Path | None:
        """The path of the run directory."""
        return None if self.store is None else self.store.directory

    @property
    def seconds(self) -> float:
        """Time trained so far, over all resumptions."""
        return self.seconds_before + time.monotonic() - self._started

    @property
    def has_stopped(self) -> bool:
        """Whether the state has nothing left to train."""
        return in_fit(self.plan.program).is_over(self.train)

    @property
    def counters(self) -> Counters:
        """Return the counters of the training state."""
        return self.train.counters

    def step(self, batch: Batch, ends_epoch: bool) -> Metrics:
        """Train on a batch, and begin the next epoch after the last step of an epoch."""
        # A step must not consume a state that a listener, a save or the caller may have.
        program = self.plan.program if is_lent(self.train) else self.plan.donating
        self.train, metrics = program.train_step(self.train, batch)
        if ends_epoch:
            self.train = with_fields(self.train, counters=self.counters.next_epoch())
        return metrics

    def batches(self) -> Iterator[tuple[Batch, bool]]:
        """Draw the rest of the epoch: the batch of each step, and whether it is the last."""
        saved, self.data_state = self.data_state, None
        program = self.plan.program
        accumulate, sharing = program.recipe.accumulate, sharing_of(program)
        return epoch_batches(self.source, self.train, accumulate, saved, sharing)

    def update_position(self, batches: int | None) -> None:
        """Compute where the run stands, and the limit that it has reached there."""
        seconds = first(self.world, self.seconds) if self.plan.timed else self.seconds
        self.position = Position.of(self, batches, seconds)
        self.limit = self.plan.limits.reached(self.position)

    def hear_requests(self) -> None:
        """Ask all ranks whether a listener or a signal wants the run to end.

        Only the answer counts: a signal that comes after it is heard next time.
        """
        stop = None if self.stop is None else self.stop.detail
        stop, signal = any_rank(self.world, [stop, self.interrupts.received])
        self.requested = stop, signal

    def interrupted(self) -> bool:
        """Return whether a rank has received a signal; all ranks call this together."""
        self.hear_requests()
        return self.requested[1] is not None

    @property
    def pending(self) -> dict[str, Any] | None:
        """Return the work left for the last step; it is saved, so a resumed run does the rest."""
        return self.loop.owed

    def mark_done(self, **done: Any) -> None:
        """Record finished work, so that neither an exception nor a kill makes it happen twice."""
        self.loop = attrs.evolve(self.loop, owed={**(self.pending or {}), **done})

    def extended_row(self, values: Mapping[str, float]) -> Row:
        """Return the row of the last step with more values; empty if its batch made no step."""
        row: Row = (self.pending or {}).get("row") or {}
        return {**row, **values} if row else {}

    def emit(self, event: events.Event, row: Row | None = None) -> None:
        """Send an event to the listeners; metrics that they return are added to the row."""
        handed = attrs.evolve(event, state=handed_out(event.state))
        self.stop = self.listeners.emit(handed, row) or self.stop

    def flush(self) -> None:
        """Write buffered rows, except the last one if an evaluation may still add to it."""
        hold_last = self.pending is not None and self.pending["row"] is None
        sums, last = self.recorder.flush(self.loop.sums, hold_last)
        self.loop = attrs.evolve(self.loop, sums=sums)
        if hold_last:
            self.mark_done(row=last)
