"""The checkpoints of a session: what is in them, when they are made, and who hears of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from functrain.checkpoint import Saver
from functrain.checkpoint.ranks import world_of
from functrain.checkpoint.run_state import RunState
from functrain.core.state import lend
from functrain.data.stateful import StatefulSource
from functrain.training.agreement import first
from functrain.training.session import Session
from functrain.tree.nodes import copy


def save(session: Session, metrics: Mapping[str, Any] | None = None) -> None:
    """Write a checkpoint of this step, unless it exists or there is no directory.

    All ranks call this, and each writes its share.

    The metrics are those of this step's evaluation; they decide which checkpoint is the best.
    """
    session.flush()
    checkpointer = session.checkpointer
    if checkpointer is None or checkpointer.has(session.train, session.loop):
        return
    if not session.between_steps and isinstance(session.source, StatefulSource):
        # The loader is one batch ahead of the state. An older checkpoint resumes exactly.
        return
    emit_saved(session, Saver.wait)
    checkpointer.forget_changing_contents()
    # The log must be durable before a checkpoint that records its length.
    sync_log = session.recorder.syncing()
    measured = session.decisions.saved_metrics(metrics or {})
    place = None if session.before is None else attrs.asdict(session.before)
    clock = {"seconds": session.seconds, "before_last_step": place}
    checkpointer.save(_run_state(session), measured, clock, sync_log)
    _emit_if_saved(session)


def emit_saved(session: Session, ask: Callable[[Saver], Path | str | None]) -> None:
    """Emit ``CheckpointSaved`` once a checkpoint is durable, or raise the error of its save."""
    event = None if session.checkpointer is None else session.checkpointer.saved(ask)
    if event is not None:
        session.emit(event)


def poll(session: Session) -> None:
    """Write rows if enough are buffered; emit ``CheckpointSaved`` if one is durable by now."""
    if session.recorder.due:
        session.flush()
    _emit_if_saved(session)


def _emit_if_saved(session: Session) -> None:
    # A save may be finished on some ranks and not yet on others: rank 0 decides.
    if session.checkpointer is None or session.checkpointer.in_flight is None:
        return
    if first(session.world, session.checkpointer.saver.is_finished):
        emit_saved(session, Saver.wait)


def _run_state(session: Session) -> RunState:
    """Return everything that a resumed run needs; on other ranks than 0 what they add to it."""
    loop = attrs.evolve(session.loop, log_bytes=session.recorder.size)
    states = session.listeners.states()
    if not session.leads:
        placed = {name: state for name, state in states.items() if world_of(state)}
        return RunState(lend(session.train), loop, None, copy(placed))
    # A loaded state that the source has not been given yet is still the present one.
    waiting = session.data_state
    data = session.source.state() if waiting is None else waiting
    # Loaders and listeners may go on writing to their states, so these are copied.
    return RunState(lend(session.train), loop, copy(data), copy(states))
