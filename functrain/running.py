"""One call of ``fit`` while it lasts: the only object here that changes.

It owns the present state, the log and the clock, and carries out for each step what ``loop.py``
promises. Everything in it that matters for resumption is in :meth:`Running.run_state`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from functrain import events, listening, metrics
from functrain.batch import Batch
from functrain.checkpoint import Checkpoints, Saver
from functrain.copying import copy
from functrain.data import Source
from functrain.data.describing import describe
from functrain.data.stateful import Stateful
from functrain.deciding import Deciding, warn_of_no_best
from functrain.durations import Duration
from functrain.errors import (
    CheckpointWriteError,
    ListenerError,
    NonFiniteError,
    NonFiniteWarning,
    ReplayWarning,
)
from functrain.evaluation import Interrupted
from functrain.evaluations import Evaluations
from functrain.history import History, Row
from functrain.horizon import scheduled, taken_up
from functrain.keeping import Keeper
from functrain.limits import Ending, Limits
from functrain.ownership import solely_held
from functrain.position import Position, due
from functrain.program import Program
from functrain.recording import Recorder
from functrain.resumption import Resume, chosen, restore
from functrain.rewinding import bring_log, set_aside
from functrain.run_state import LoopState, Run, RunState
from functrain.signals import Interrupts
from functrain.state import TrainState, is_consumed
from functrain.stepping import advance, epoch_batches, position
from functrain.warning import warn

_LOST = (
    "the step failed while it wrote its results over the state it was given, so there is no state "
    "to save; the newest checkpoint stands"
)
_GRACE = 25.0  # seconds that an interrupted run waits for its final checkpoint


@attrs.define(eq=False, kw_only=True)
class Running:
    """The state of a running loop and what is done with it at each step."""

    program: Program
    source: Source
    limits: Limits
    evaluations: Evaluations
    save_every: Duration
    store: Checkpoints | None
    deciding: Deciding
    restore_best: bool
    listeners: tuple[events.Listener, ...]

    donating: Program = attrs.field(init=False)
    best_state: TrainState | None = None
    train: TrainState = attrs.field(init=False)
    loop: LoopState = attrs.field(init=False)
    at: Position = attrs.field(init=False)
    sending: listening.Listeners = attrs.field(init=False)
    stop: events.Stop | None = None
    interrupts: Interrupts = attrs.field(factory=Interrupts)
    recorder: Recorder = attrs.field(factory=lambda: Recorder(None, []))
    data_state: Any = None
    # False while a batch was drawn whose step is not made.
    between_steps: bool = True
    keeper: Keeper | None = None
    seconds_before: float = 0.0
    started: float = attrs.field(factory=time.monotonic)
    exits: contextlib.ExitStack = attrs.field(factory=contextlib.ExitStack)

    def __enter__(self) -> Running:
        self.sending = listening.Listeners.of(self.listeners)
        self.donating = attrs.evolve(self.program, donates=True)
        self.program = attrs.evolve(self.program, donates=False)
        if self.store is not None:
            self.exits.enter_context(self.store.lock())
            self.keeper = Keeper.of(self.store, self.program)
            self.keeper.described["data"] = describe(self.source)
            self.exits.enter_context(self.keeper.saver)
        self.exits.enter_context(self.interrupts)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        try:
            self.exits.__exit__(kind, error, traceback)
        finally:
            self._close()
            if error is not None:
                listening.close(self.listeners, error)

    def _close(self) -> None:
        for source in (self.source, *self.evaluations.sources()):
            source.close()
        self.recorder.close()

    # -- beginning ---------------------------------------------------------------------------

    def begin(self, state: TrainState | None, seed: int, resume: Resume) -> None:
        """Take up a checkpoint, or begin anew."""
        origin, resumed = chosen(self.store, resume), None
        steps = self.limits.steps(self.source.length, self.program.recipe.accumulate)
        if origin is not None:
            resumed = self._take_up(*origin, seed, steps)
        else:
            begun = self.program.init(seed) if state is None else state
            self.train = scheduled(self.program, begun, steps)
            self.loop = LoopState.initial(self.deciding.begun())
            self.recorder = Recorder.begin(self.store.directory if self.store else None, 0)
        self.at = self._position(self.source.length)
        self._send(events.TrainBegin(self.train, steps, self.source.length, resumed))

    def _take_up(
        self, origin: Checkpoints, which: int | str | Path, seed: int, steps: int | None
    ) -> Path:
        data = describe(self.source)
        saved, info, path = restore(origin, self.program, seed, which, data)
        self.train = taken_up(self.program, saved.train, steps)
        self.loop, self.data_state = saved.loop, saved.data
        self.seconds_before = info.get("seconds", 0.0)
        directory = self.store.directory if self.store else None
        if directory == origin.directory and self.keeper is not None:
            self.keeper.taken_up(self.train, self.loop)
            self.keeper.described |= {key: info[key] for key in ("parent",) if key in info}
            set_aside(origin, self.train.counters.step)
        else:
            seen = 0 if directory is None else bring_log(path, directory, self.loop.log_bytes)
            self.loop = attrs.evolve(self.loop, log_bytes=seen)
            if self.keeper is not None:
                self.keeper.described["parent"] = str(path.absolute())
        self.loop = self.deciding.taken_up(self.loop)
        self.recorder = Recorder.begin(directory, self.loop.log_bytes)
        listening.load_states(self.listeners, saved.listeners)
        return path

    # -- the loop ----------------------------------------------------------------------------

    def go(self) -> Ending:
        """Make steps until something ends the run.

        Any exception leaves a checkpoint of the last good state behind before it goes on.
        """
        try:
            ending = self._owed() or self._already_over()
            if ending is None:
                self._notice_replay()
                ending = self._epochs()
            return ending
        except NonFiniteError as error:
            warn(f"the run ends: {error}", NonFiniteWarning)
            return Ending("nonfinite", str(error))
        except BaseException as error:
            if is_consumed(self.train):
                error.add_note(_LOST)
                raise
            try:
                self.save()
                self._tell_saved(Saver.close)
            except (CheckpointWriteError, ListenerError) as second:
                error.add_note(f"the last state could not be saved: {second}")
            raise

    def _notice_replay(self) -> None:
        done = self.train.counters.batch
        if done and self.source.replays:
            warn(
                f"this data can only be read from its beginning: to go on in epoch "
                f"{self.train.counters.epoch}, {done} batches are drawn and dropped. "
                "functrain.data.Batches, or a loader with state_dict, goes there at once.",
                ReplayWarning,
            )

    def _already_over(self) -> Ending | None:
        limit = self.limits.reached(self.at)
        if limit is None and self.loop.early_stop.get("stop"):
            return Ending("early_stop", self.loop.early_stop["stop"])
        return limit

    def _epochs(self) -> Ending:
        accumulate = self.program.recipe.accumulate
        while True:
            epoch = self.train.counters.epoch
            self._send(events.EpochBegin(self.train, epoch))
            saved, self.data_state = self.data_state, None
            for batch, ends in epoch_batches(self.source, self.train, accumulate, saved):
                ending = self._step(batch, ends)
                if ending is not None:
                    return ending
            if self.train.counters.epoch == epoch:
                # The data ended before its own length said so.
                following = self.train.counters.next_epoch()
                self.train = attrs.evolve(self.train, counters=following)
                self.at = self._position(self.source.length)
                limit = self.limits.reached(self.at)
                if limit is not None:
                    return limit

    def _step(self, batch: Batch, ends_epoch: bool) -> Ending | None:
        if self.sending.wants(events.BatchBegin):
            self._send(events.BatchBegin(self.train, batch))
        before, counters = self.at, self.train.counters
        self.between_steps = False
        # What nobody else holds may be written over: no listener, no save under way, no caller.
        donates = solely_held(self, "train", self.program)
        program = self.donating if donates else self.program
        self.train, step_metrics = advance(program, self.train, batch, ends_epoch)
        self.between_steps = True
        # Asked for at the first batch, when the data knows its epoch, and at the last.
        known = before.batch > 0 and not ends_epoch
        self.at = self._position(before.batches if known else self.source.length)
        made = self.train.counters.step > counters.step
        if made:
            row = {"step": self.train.counters.step, "epoch": counters.epoch, **step_metrics}
            self.recorder.add(row, self.train.counters.samples - counters.samples)
        limit = self.limits.reached(self.at)
        evaluate = self.evaluations.due(before, self.at, limit is not None)
        save = due(self.save_every, before, self.at) or limit is not None
        if ends_epoch or evaluate or save:
            owed = {"epoch_end": ends_epoch, "evaluate": evaluate, "save": save, "row": None}
            self.loop = attrs.evolve(self.loop, owed=owed)
        if made and self.sending.wants(events.BatchEnd):
            self._send(events.BatchEnd(self.train, step_metrics), row)
        return self._owed() or self._check(limit)

    def _check(self, limit: Ending | None) -> Ending | None:
        """The stop check, last at each step."""
        if self.recorder.due:
            self._flush()
        self._tell_saved(Saver.poll)
        if limit is not None:
            return limit
        if self.loop.early_stop.get("stop"):
            return Ending("early_stop", self.loop.early_stop["stop"])
        if self.stop is not None:
            return Ending("listener", self.stop.detail)
        if self.interrupts.received:
            return Ending("interrupted", f"received {self.interrupts.received}")
        return None

    # -- what is owed after a step -----------------------------------------------------------

    def _owed(self) -> Ending | None:
        """Do what the last step still owes.

        What is done is struck off at once, so that an interruption in between, or an exception,
        leaves a state from which the rest is done after resumption.
        """
        if self.loop.owed is None:
            return None
        self._settle()
        if self.loop.owed["epoch_end"]:
            self._end_epoch()
        found: dict[str, float] = {}
        if self.loop.owed["evaluate"]:
            try:
                found = self.evaluations.evaluated(
                    self.program, self.train, self.loop.owed["evaluate"], self._send, self._asked
                )
            except Interrupted:
                return Ending("interrupted", f"received {self.interrupts.received}")
            self._decide(found)
        row, save = self.loop.owed["row"], self.loop.owed["save"]
        self.loop = attrs.evolve(self.loop, owed=None)
        self.recorder.write([row] if row else [])
        if save or self.loop.early_stop.get("stop"):
            self.save(found)
        return None

    def _strike(self, **done: Any) -> None:
        self.loop = attrs.evolve(self.loop, owed={**(self.loop.owed or {}), **done})

    def _noted(self, values: Mapping[str, float]) -> Row:
        """The row of the last step with more in it; empty where that batch made no step."""
        row: Row = (self.loop.owed or {}).get("row") or {}
        return {**row, **values} if row else {}

    def _end_epoch(self) -> None:
        means = metrics.mean(self.loop.sums)
        row = self._noted({f"epoch/{name}": value for name, value in means.items()})
        self.loop = attrs.evolve(self.loop, sums={})
        self._strike(epoch_end=False, row=row)
        self._send(events.EpochEnd(self.train, self.train.counters.epoch - 1, means, True))

    def _decide(self, found: dict[str, float]) -> None:
        """Best, early stop and plateau."""
        owed, before = self.loop.owed or {}, self.loop.best
        complete = len(owed["evaluate"]) == len(self.evaluations.sets)
        epoch = {key: value for key, value in (owed["row"] or {}).items() if key[:6] == "epoch/"}
        self.loop, self.train = self.deciding.after(self.loop, self.train, epoch | found, complete)
        improved = self.loop.best is not before
        if improved and self.restore_best and self.store is None:
            self.best_state = self.train
        self._strike(evaluate=[], row=self._noted(found), save=owed["save"] or improved)
        if detail := self.loop.early_stop.get("stop"):
            self._send(events.EarlyStopped(self.train, detail))

    # -- effects -----------------------------------------------------------------------------

    def save(self, found: Mapping[str, float] | None = None) -> None:
        """Write a checkpoint of this step, unless it stands already or nothing is to be written.

        Args:
            found: metrics of this step's evaluation; they decide what is best.
        """
        self._settle()
        if self.keeper is None or self.keeper.has(self.train, self.loop):
            return
        if not self.between_steps and isinstance(self.source, Stateful):
            # Its state has a batch behind it that made no step: an older checkpoint is exact.
            return
        self._tell_saved(Saver.wait)
        # The log must be on the disk before a checkpoint that has seen it.
        first = self.recorder.syncing()
        self.keeper.save(self.run_state(), found or {}, self._seconds(), first)
        self._tell_saved(Saver.poll)

    def _tell_saved(self, ask: Callable[[Saver], Path | str | None]) -> None:
        """Tell listeners of the checkpoint under way, if it is saved; its errors are raised."""
        event = None if self.keeper is None else self.keeper.saved(ask)
        if event is not None:
            self._send(event)

    def run_state(self) -> RunState:
        """All that a resumed run needs."""
        states = listening.states(self.listeners)
        loop = attrs.evolve(self.loop, log_bytes=self.recorder.size)
        # A saved state that the data has not taken up yet is still what there is.
        data = self.source.state() if self.data_state is None else self.data_state
        # Not values of ours: their owners may go on writing to them.
        return RunState(self.train, loop, copy(data), copy(states))

    def end(self, ending: Ending) -> Run:
        """The final checkpoint, the last events, and the result."""
        self.save()
        # Whoever interrupts a run may soon do so with force.
        hurried = ending.reason == "interrupted"
        self._tell_saved(lambda saver: saver.close(_GRACE if hurried else None))
        counters = self.train.counters
        if counters.batch:
            means = metrics.mean(self.loop.sums)
            self._send(events.EpochEnd(self.train, counters.epoch, means, False))
        self._send(events.TrainEnd(self.train, ending.reason, ending.detail))
        return Run(
            state=self._best() if self.restore_best else self.train,
            history=History(self.recorder.rows),
            reason=ending.reason,
            detail=ending.detail,
            directory=None if self.store is None else self.store.directory,
            best=self.loop.best,
            seconds=self._seconds(),
        )

    def _best(self) -> TrainState:
        step = self.loop.best["step"]
        if step is None:
            warn_of_no_best(self.deciding.monitor)
        if step in (None, self.train.counters.step):
            return self.train
        if self.store is None:
            return self.best_state or self.train
        return restore(self.store, self.program, self.train.rng.seed, step)[0].train

    def _settle(self) -> None:
        """Fetch and write the rows so far, but for one that what is owed will add to."""
        if self.loop.owed is not None and self.loop.owed["row"] is None:
            self._strike(row=self._flush(hold_last=True))
        else:
            self._flush()

    def _asked(self) -> bool:
        return self.interrupts.received is not None

    def _flush(self, hold_last: bool = False) -> Row:
        sums, last = self.recorder.flush(self.loop.sums, hold_last)
        self.loop = attrs.evolve(self.loop, sums=sums)
        return last

    def _send(self, event: events.Event, row: Row | None = None) -> None:
        """Tell listeners; what they add to a step goes into its row."""
        self.stop = self.sending.send(event, row) or self.stop

    def _position(self, batches: int | None) -> Position:
        seconds = self._seconds() if self.limits.timed else 0.0
        return position(self.train, batches, seconds)

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started
