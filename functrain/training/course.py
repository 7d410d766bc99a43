"""A run while it lasts: its present state, and who is told of it.

Everything that matters for resumption is in :meth:`Course.run_state`. The rest are effects:
listeners, log, checkpoints, signals and the clock.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from functrain.checkpoint import Checkpoints, Saver
from functrain.checkpoint.run_state import LoopState, RunState
from functrain.core.program import Program
from functrain.core.state import TrainState
from functrain.data import Source
from functrain.data.describing import describe
from functrain.data.stateful import Stateful
from functrain.training import dispatch, events
from functrain.training.checkpointer import Keeper
from functrain.training.dispatch import Listeners
from functrain.training.metrics_log import Recorder, Row
from functrain.training.resume import bring_log, set_aside
from functrain.training.signals import Interrupts
from functrain.tree.copying import copy


@attrs.define(eq=False)
class Course:
    """The present state of a run, changed by :class:`~functrain.training.running.Running` alone.

    Attributes:
        source: the data; may have a state of its own.
        listeners: who is told.
        sending: how they are told.
        keeper: of checkpoints; ``None`` where nothing is written.
        train: the training state.
        loop: the loop's decisions.
        data_state: a saved state that the data has not taken up yet.
        between_steps: false while a batch was drawn whose step is not made.
        stop: what a listener asked for.
        interrupts: signals received.
        recorder: of the log.
        seconds_before: time trained before this call.
    """

    source: Source
    listeners: tuple[events.Listener, ...]
    sending: Listeners
    keeper: Keeper | None
    train: TrainState = attrs.field(init=False)
    loop: LoopState = attrs.field(init=False)
    data_state: Any = None
    between_steps: bool = True
    stop: events.Stop | None = None
    interrupts: Interrupts = attrs.field(factory=Interrupts)
    recorder: Recorder = attrs.field(factory=lambda: Recorder(None, []))
    seconds_before: float = 0.0
    _contents_known: bool = False
    _started: float = attrs.field(factory=time.monotonic)
    _exits: contextlib.ExitStack = attrs.field(factory=contextlib.ExitStack)

    @classmethod
    def of(
        cls,
        program: Program,
        source: Source,
        store: Checkpoints | None,
        listeners: Sequence[events.Listener],
    ) -> Course:
        """Before it begins.

        Args:
            program: what is trained.
            source: the data.
            store: the run directory.
            listeners: who is told.
        """
        keeper = None if store is None else Keeper.of(store, program)
        if keeper is not None:
            keeper.described["data"] = describe(source)
        return cls(source, tuple(listeners), Listeners.of(listeners), keeper)

    def __enter__(self) -> Course:
        if self.keeper is not None:
            self._exits.enter_context(self.keeper.store.lock())
            self._exits.enter_context(self.keeper.saver)
        self._exits.enter_context(self.interrupts)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        try:
            self._exits.__exit__(kind, error, traceback)
        finally:
            self.source.close()
            self.recorder.close()
            if error is not None:
                dispatch.close(self.listeners, error)

    @property
    def store(self) -> Checkpoints | None:
        """The run directory, and what is kept in it."""
        return None if self.keeper is None else self.keeper.store

    @property
    def directory(self) -> Path | None:
        """Where that is."""
        return None if self.store is None else self.store.directory

    @property
    def data(self) -> dict[str, Any]:
        """What a checkpoint says of the data."""
        if self.keeper is None:
            return describe(self.source)
        described: dict[str, Any] = self.keeper.described["data"]
        return described

    @property
    def seconds(self) -> float:
        """Time trained so far, over all resumptions."""
        return self.seconds_before + time.monotonic() - self._started

    # -- beginning ---------------------------------------------------------------------------

    def begin(self, train: TrainState, loop: LoopState) -> None:
        """Begin anew."""
        self.train, self.loop = train, loop
        self.recorder = Recorder.begin(self.directory, 0)

    def take_up(self, saved: RunState, origin: Checkpoints, info: dict[str, Any], at: Path) -> None:
        """Go on from a checkpoint.

        Args:
            saved: what it holds.
            origin: the run directory it is of, this one or another.
            info: what was written beside it.
            at: its path.
        """
        self.train, self.loop, self.data_state = saved.train, saved.loop, saved.data
        self.seconds_before = info.get("seconds", 0.0)
        if self.keeper is not None and self.directory == origin.directory:
            self.keeper.taken_up(self.train, self.loop)
            self.keeper.described |= {key: info[key] for key in ("parent",) if key in info}
            if (info.get("data") or {}).get("contents", "") is None:
                self.data["contents"] = None
            set_aside(origin, self.train.counters.step)
        else:
            seen = 0
            if self.keeper is not None:
                seen = bring_log(at, self.keeper.store.directory, self.loop.log_bytes)
                self.keeper.described["parent"] = str(at.absolute())
            self.loop = attrs.evolve(self.loop, log_bytes=seen)
        self.recorder = Recorder.begin(self.directory, self.loop.log_bytes)
        dispatch.load_states(self.listeners, saved.listeners)

    def run_state(self) -> RunState:
        """All that a resumed run needs."""
        states = dispatch.states(self.listeners)
        loop = attrs.evolve(self.loop, log_bytes=self.recorder.size)
        # A saved state that the data has not taken up yet is still what there is.
        data = self.source.state() if self.data_state is None else self.data_state
        # Not values of ours: their owners may go on writing to them.
        return RunState(self.train, loop, copy(data), copy(states))

    # -- telling -----------------------------------------------------------------------------

    def send(self, event: events.Event, row: Row | None = None) -> None:
        """Tell listeners; what they add to a step goes into its row."""
        self.stop = self.sending.send(event, row) or self.stop

    def flush(self, hold_last: bool = False) -> Row:
        """Fetch and write the rows so far, the last one only if it is not held; returns that."""
        sums, last = self.recorder.flush(self.loop.sums, hold_last)
        self.loop = attrs.evolve(self.loop, sums=sums)
        return last

    def settle(self) -> None:
        """Fetch and write the rows so far, but for one that what is owed will add to."""
        if self.loop.owed is not None and self.loop.owed["row"] is None:
            self.strike(row=self.flush(hold_last=True))
        else:
            self.flush()

    def strike(self, **done: Any) -> None:
        """Note what is done of that which the last step owes."""
        self.loop = attrs.evolve(self.loop, owed={**(self.loop.owed or {}), **done})

    def noted(self, values: Mapping[str, float]) -> Row:
        """The row of the last step with more in it; empty where that batch made no step."""
        row: Row = (self.loop.owed or {}).get("row") or {}
        return {**row, **values} if row else {}

    # -- keeping -----------------------------------------------------------------------------

    def save(self, found: Mapping[str, float] | None = None) -> None:
        """Write a checkpoint of this step, unless it stands already or nothing is to be written.

        Args:
            found: metrics of this step's evaluation; they decide what is best.
        """
        self.settle()
        if self.keeper is None or self.keeper.has(self.train, self.loop):
            return
        if not self.between_steps and isinstance(self.source, Stateful):
            # Its state has a batch behind it that made no step: an older checkpoint is exact.
            return
        self.tell_saved(Saver.wait)
        self._forget_contents_that_change()
        # The log must be on the disk before a checkpoint that has seen it.
        first = self.recorder.syncing()
        self.keeper.save(self.run_state(), found or {}, self.seconds, first)
        self.tell_saved(Saver.poll)

    def _forget_contents_that_change(self) -> None:
        """Say nothing of contents that are others once they were read: logs, lazy samples."""
        if self.keeper is None or self._contents_known:
            return
        self._contents_known = True
        if self.data["contents"] not in (None, describe(self.source)["contents"]):
            self.data["contents"] = None

    def tell_saved(self, ask: Callable[[Saver], Path | str | None]) -> None:
        """Tell listeners of the checkpoint under way, if it is saved; its errors are raised."""
        event = None if self.keeper is None else self.keeper.saved(ask)
        if event is not None:
            self.send(event)
