"""How a session ends: the reasons, the last checkpoint, the last events and the result."""

from __future__ import annotations

import torch

from functrain import metrics
from functrain.checkpoint import Saver
from functrain.core.state import TrainState, is_consumed
from functrain.core.step import is_eager
from functrain.errors import (
    CheckpointWriteError,
    FunctrainWarning,
    ListenerError,
    NonFiniteWarning,
)
from functrain.errors.base import warn
from functrain.training import events
from functrain.training.decisions import warn_of_no_best
from functrain.training.history import History, Run
from functrain.training.limits import Ending
from functrain.training.one_model import in_fit
from functrain.training.resume import restore
from functrain.training.session import Session

_GRACE = 25.0  # seconds that an interrupted run waits for its final checkpoint
_STATE_LOST = (
    "the step failed while it wrote its results over the state it was given, so there is no state "
    "to save; the newest checkpoint stands"
)

_STATE_WRITTEN = (
    "the state is no longer that of the run, so it is not saved; the newest checkpoint stands"
)
_RANKS_LOST = (
    "the other ranks end too, so there is nobody to save the state with; the newest checkpoint "
    "stands"
)


def ended(session: Session) -> Ending | None:
    """Return the limit that the run has reached, or the decision of early stopping."""
    all_stopped = "all members have stopped" if session.has_stopped else None
    stopped = session.loop.early_stop.get("stop") or all_stopped
    return session.place.limit or (Ending("early_stop", stopped) if stopped else None)


def stop_requested(session: Session) -> Ending | None:
    """Return the request of a listener or of a signal to stop, if any rank has one."""
    stop, signal = session.requests()
    if stop is not None:
        return Ending("listener", stop)
    return None if signal is None else interrupted(session)


def interrupted(session: Session) -> Ending:
    """Return the ending that a received signal asks for."""
    return Ending("interrupted", f"received {session.requests()[1]}")


def save_after(session: Session, error: BaseException) -> None:
    """Save the last good state after an exception, which gets a note if that is not possible."""
    if is_consumed(session.train):
        error.add_note(_STATE_LOST)
        return
    if isinstance(error, ListenerError) and error.wrote_state:
        error.add_note(_STATE_WRITTEN)
        return
    if session.ranks.world.size > 1:
        error.add_note(_RANKS_LOST)
        return
    try:
        session.save({})
        session.report_saved(Saver.close)
    except (CheckpointWriteError, ListenerError) as second:
        error.add_note(f"the last state could not be saved: {second}")


def finished(session: Session, ending: Ending) -> Run:
    """Save the last state, emit the last events, and return what ``fit`` returns."""
    session.save({})
    # The sender of a signal may soon kill the process.
    grace = _GRACE if ending.reason == "interrupted" else None
    session.report_saved(lambda saver: saver.close(grace))
    counters = session.train.counters
    new_steps = counters.step - session.beginning.step
    _warn_of_skipped(session, new_steps)
    _warn_of_idle_seed(session)
    if counters.batch:
        means = metrics.mean(session.loop.sums)
        means = in_fit(session.plan.program).reported(session.train, means)
        session.emit(events.EpochEnd(session.train, counters.epoch, means, False))
    session.emit(events.TrainEnd(session.train, ending.reason, ending.detail))
    # Rank 0 has the metrics of its listeners, too. The others go on once its files are written.
    rows, seconds = session.ranks.broadcast((session.recorder.rows, session.seconds()))
    run = Run(
        state=_best(session) if session.plan.restore_best else session.train,
        history=History(rows),
        reason=ending.reason,
        detail=ending.detail,
        directory=session.directory,
        best={name: one for name, one in session.loop.best.items() if name != "state"},
        seconds=seconds,
        new_steps=new_steps,
    )
    return run.of_program(session.plan.program)


def _warn_of_skipped(session: Session, made: int) -> None:
    """Warn that no step of this call has changed the weights, or those of a member.

    The first steps in fp16 are meant to overflow until the loss scale fits.
    """
    skipped = torch.as_tensor(session.train.counters.skipped - session.beginning.skipped)
    useless = skipped >= made
    first = session.beginning.scale
    if first is not None and (last := session.train.loss_scale) is not None:
        useless &= (last["scale"] <= 1) | (last["scale"] > first["scale"] * 0.5**made)
    if made and bool(useless.any()):
        whose = "" if skipped.dim() == 0 else f" of members {useless.nonzero().tolist()}"
        warn(
            f"all {made} steps of this call{whose} were skipped, because their loss or gradients "
            "were not finite: the weights are as they were before. Look for the first value that "
            'is not finite with functrain.program(..., nonfinite="raise")',
            NonFiniteWarning,
        )


def _warn_of_idle_seed(session: Session) -> None:
    """Warn that runs of all seeds are the same, as no step has drawn from the seed either."""
    seed, leaves = session.beginning.idle_seed, session.plan.program.leaves().values()
    eager = all(is_eager(leaf.device_step) for leaf in leaves)  # others draw elsewhere
    if seed is not None and eager and all(leaf.fixed.draws.are_none for leaf in leaves):
        warn(
            f"seed={seed} changed nothing: the model is a module with weights of its own, the data "
            "has an order of its own, and no step drew random numbers. For weights by the seed "
            "give a factory, functrain.program(lambda: Net(), ...); for an order by it, "
            "functrain.data.Batches without a seed",
            FunctrainWarning,
        )


def _best(session: Session) -> TrainState:
    best = session.decisions.best_state(session.loop, session.train)
    if best is not None:
        return best
    step = session.loop.best["step"]
    if step is None:
        warn_of_no_best(session.decisions.monitor)
    if step in (None, session.train.counters.step):
        return session.train
    if session.best_state is not None:
        return session.best_state
    assert session.checkpointer is not None, "the best state is in memory or in a checkpoint"
    store, world = session.checkpointer.store, session.ranks.world
    return restore(store, session.plan.program, step, world)[0].train
