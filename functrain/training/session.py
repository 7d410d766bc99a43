"""The mutable state of one ``fit`` call and its effects: events, log, checkpoints, clock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from functrain.checkpoint import Saver
from functrain.checkpoint.ranks import world_of
from functrain.checkpoint.run_directory import used_by_one_run
from functrain.checkpoint.run_state import LoopState, RunState
from functrain.core.state import TrainState, handed_out, lend
from functrain.data import Source
from functrain.data.stateful import StatefulSource
from functrain.metrics.log_file import Row
from functrain.training import events
from functrain.training.agreement import Ranks
from functrain.training.checkpointer import Checkpointer
from functrain.training.decisions import Decisions
from functrain.training.dispatch import Listeners
from functrain.training.limits import Ending, Position
from functrain.training.metrics_log import Recorder
from functrain.training.one_model import in_fit
from functrain.training.plan import Due, Plan
from functrain.training.signals import Interrupts
from functrain.tree.nodes import copy


@attrs.frozen
class Place:
    """Where a run stands, in the units of durations.

    Attributes:
        now: after its last step.
        before: where it stood before that; ``None`` before the first one.
        limit: that it has reached, if any.
    """

    now: Position
    before: Position | None = None
    limit: Ending | None = None


@attrs.frozen
class Beginning:
    """The counts that a call began with, to compare those at its end with.

    Attributes:
        skipped: the steps before it that were skipped.
        scale: the loss scale; ``None`` without one.
        idle_seed: the seed of ``fit`` that neither weights nor data follow from, if it is so.
    """

    step: int
    skipped: Any
    scale: Any
    idle_seed: int | None

    @classmethod
    def of(cls, state: TrainState, idle_seed: int | None) -> Beginning:
        """Copy the counts of a state, since a step may write to them."""
        counters, scale = state.counters, getattr(state, "loss_scale", None)
        return cls(counters.step, copy(counters.skipped), copy(scale), idle_seed)


@attrs.define(eq=False, kw_only=True)
class Session:
    """The mutable state of one ``fit`` call and its effects.

    Attributes:
        plan: what is evaluated and saved, and when.
        decisions: the rules for best, early stop and plateau; a pure reducer.
        source: the data; may have a state of its own.
        checkpointer: writes checkpoints, together with other ranks; ``None`` without a directory.
        interrupts: signals that this rank has received.
        train: the training state.
        loop: the decisions so far.
        due: what is due after the last step, and not done yet.
        place: where the run stands.
        data_state: a loaded state that the source has not been given yet.
        has_drawn: whether a batch was drawn and its step has not been made.
        stop: why a listener of this rank asks for the end of the run.
        recorder: buffers and writes the rows of the metrics log.
        best_state: the best state so far, where ``fit`` returns it and no checkpoint of this run
            holds it.
        started: when the run would have begun, had it been trained without a break.
    """

    plan: Plan
    decisions: Decisions
    source: Source
    listeners: Listeners
    checkpointer: Checkpointer | None
    ranks: Ranks
    interrupts: Interrupts
    train: TrainState = attrs.field(init=False)
    loop: LoopState = attrs.field(init=False)
    due: Due | None = None
    place: Place = attrs.field(init=False)
    beginning: Beginning = attrs.field(init=False)
    data_state: Any = None
    has_drawn: bool = False
    stop: str | None = None
    recorder: Recorder = attrs.field(factory=lambda: Recorder(None, []))
    best_state: TrainState | None = None
    started: float = attrs.field(factory=time.monotonic)

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the run directory and the signals, and close everything in the end."""
        with contextlib.ExitStack() as stack:
            stack.push(self._close)
            if self.checkpointer is not None:
                if self.ranks.leads:
                    stack.enter_context(used_by_one_run(self.checkpointer.store.directory))
                stack.enter_context(self.checkpointer.saver)
            stack.enter_context(self.interrupts)
            yield

    def _close(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.source.close()
        self.recorder.close()
        if error is not None:
            self.listeners.close(error)

    @property
    def directory(self) -> Path | None:
        """The path of the run directory."""
        return None if self.checkpointer is None else self.checkpointer.store.directory

    @property
    def has_stopped(self) -> bool:
        """Whether the state has nothing left to train."""
        return in_fit(self.plan.program).is_over(self.train)

    def seconds(self) -> float:
        """Return the time trained so far, over all resumptions."""
        return time.monotonic() - self.started

    def move_to(self, batches: int | None, before: Position | None) -> None:
        """Note where the run stands, in epochs of ``batches``, and the limit it has reached."""
        seconds = self.ranks.first(self.seconds()) if self.plan.timed else self.seconds()
        now = Position.of(self.train, batches, seconds)
        self.place = Place(now, before, self.plan.limits.reached(now))

    def requests(self) -> tuple[str | None, str | None]:
        """Return why a listener and which signal asks for the end of the run, on any rank."""
        stop, signal = self.ranks.any_answers([self.stop, self.interrupts.received])
        return stop, signal

    def is_interrupted(self) -> bool:
        """Return whether a rank has received a signal; all ranks call this together."""
        return self.requests()[1] is not None

    def emit(self, event: events.Event, row: Row | None = None) -> None:
        """Send an event to the listeners; metrics that they return are added to the row."""
        handed = attrs.evolve(event, state=handed_out(event.state))
        request = self.listeners.emit(handed, row)
        self.stop = self.stop if request is None else request.detail

    # -- the log and checkpoints -------------------------------------------------------------

    def mark_done(self, **done: Any) -> None:
        """Record finished work, so that neither an exception nor a kill makes it happen twice."""
        assert self.due is not None, "it was due"
        self.due = attrs.evolve(self.due, **done)

    def flush(self) -> None:
        """Write buffered rows, except the last one if an evaluation may still add to it."""
        hold_last = self.due is not None and self.due.row is None
        sums, last = self.recorder.flush(self.loop.sums, hold_last)
        self.loop = attrs.evolve(self.loop, sums=sums)
        if hold_last:
            self.mark_done(row=last)

    def save(self, metrics: Mapping[str, Any]) -> None:
        """Write a checkpoint of this step, unless it exists or there is no directory.

        All ranks call this, and each writes its share. The metrics are those of this step's
        evaluation; they decide which checkpoint is the best.
        """
        self.flush()
        writer = self.checkpointer
        if writer is None or writer.newest == (self.train.counters.step, self.due is None):
            return
        if self.has_drawn and isinstance(self.source, StatefulSource):
            # The loader is one batch ahead of the state. An older checkpoint resumes exactly.
            return
        self.report_saved(Saver.wait)
        writer.forget_changing_contents()
        # The log must be durable before a checkpoint that records its length.
        sync_log = self.recorder.syncing()
        before = None if self.place.before is None else attrs.asdict(self.place.before)
        clock = {"seconds": self.seconds(), "before_last_step": before}
        writer.save(self._run_state(), self.decisions.saved_metrics(metrics), clock, sync_log)
        self._report_if_saved()

    def poll(self) -> None:
        """Write rows if enough are buffered; emit ``CheckpointSaved`` if one is durable by now."""
        if self.recorder.due:
            self.flush()
        self._report_if_saved()

    def report_saved(self, ask: Callable[[Saver], Path | str | None]) -> None:
        """Emit ``CheckpointSaved`` once a checkpoint is durable, or raise the error of its save."""
        event = None if self.checkpointer is None else self.checkpointer.saved(ask)
        if event is not None:
            self.emit(event)

    def _report_if_saved(self) -> None:
        # A save may be finished on some ranks and not yet on others: rank 0 decides.
        if self.checkpointer is None or self.checkpointer.in_flight is None:
            return
        if self.ranks.first(self.checkpointer.saver.is_finished):
            self.report_saved(Saver.wait)

    def _run_state(self) -> RunState:
        """Return everything that a resumed run needs; on other ranks than 0 their share of it."""
        owed = None if self.due is None else attrs.asdict(self.due, recurse=False)
        loop = attrs.evolve(self.loop, owed=owed, log_bytes=self.recorder.size)
        states = self.listeners.states()
        if not self.ranks.leads:
            placed = {name: state for name, state in states.items() if world_of(state)}
            return RunState(lend(self.train), loop, None, copy(placed))
        data = self.source.state() if self.data_state is None else self.data_state
        # Loaders and listeners may go on writing to their states, so these are copied.
        return RunState(lend(self.train), loop, copy(data), copy(states))
