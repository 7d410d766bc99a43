"""The loop: the order of a step, and the steps of a run.

``moves`` of ``iteration.py`` generates the steps, for ``iterate`` too; ``fit`` adds the effects in
``_step``. Read that for the order in which everything happens. The train step and the decisions are
pure; effects (clock, signals, files) are in the session.
"""

from __future__ import annotations

from typing import Any

import attrs

from functrain import metrics
from functrain.core.batch_splitting import require_sizes
from functrain.core.schedule import Mode
from functrain.core.state import is_averaged, is_lent, lend
from functrain.errors import NonFiniteError, NonFiniteWarning
from functrain.errors.base import warn
from functrain.training import events
from functrain.training.compatibility import warn_of_replay
from functrain.training.evaluation import Interrupted
from functrain.training.finish import ended, interrupted, save_after, stop_requested
from functrain.training.iteration import Move, make_move, moves
from functrain.training.limits import Ending
from functrain.training.monitored import check_given
from functrain.training.one_model import in_fit
from functrain.training.plan import Due
from functrain.training.session import Session


def run(session: Session) -> Ending:
    """Make steps until something ends the run.

    Any exception leaves a checkpoint of the last good state behind before it is raised again.
    """
    try:
        return _steps(session)
    except NonFiniteError as error:
        warn(f"the run ends: {error}", NonFiniteWarning)
        return Ending("nonfinite", str(error))
    except BaseException as error:
        save_after(session, error)
        raise


def _steps(session: Session) -> Ending:
    session.move_to(session.source.length, session.place.before)
    ending = _finish_step(session)  # of a resumed run
    if ending is None:
        warn_of_replay(session.train, session.source)
    program, source, saved = session.plan.program, session.source, session.data_state

    def has_ended() -> bool:
        return ending is not None

    for move in moves(program, source, lambda: session.train, has_ended, saved):
        if move.has_step:
            ending = _step(session, move)
        elif move.ends_epoch:
            session.data_state = None
            session.train, _ = make_move(program, session.train, move)
            session.move_to(source.length, session.place.before)
            ending = session.place.limit
        else:
            epoch = session.train.counters.epoch
            session.emit(events.EpochBegin(session.train, epoch))
    assert ending is not None, "the moves last until the run ends"
    return ending


def _step(session: Session, move: Move) -> Ending | None:
    """Make one step, always in this order.

    The train step notes what is due after it, and each part is marked as it is done. A kill or an
    exception in between thus leaves a checkpoint from which the rest is done later.
    """
    _train_step(session, move)
    return _finish_step(session) or stop_requested(session)


def _finish_step(session: Session) -> Ending | None:
    """Do what is due after a step, and say whether a limit or a decision ends the run."""
    if session.due is not None:
        session.flush()
        if session.due.epoch_end:
            _end_epoch(session, session.due)
        found: dict[str, Any] = {}
        if session.due.evaluate:
            try:
                found, directions = _evaluate(session, session.due)
            except Interrupted:
                return interrupted(session)
            _decide(session, session.due, found, directions)
        _save_if_due(session, session.due, found)
    session.poll()
    return ended(session)


def _train_step(session: Session, move: Move) -> None:
    """Train on a batch, buffer its row, and note what is due after it."""
    plan = session.plan
    session.data_state, session.has_drawn = None, True
    if session.listeners.wants(events.BatchBegin):
        session.emit(events.BatchBegin(session.train, move.batch))
    if plan.counts_samples:
        require_sizes(move.batch)
    before, counters = session.place.now, session.train.counters
    # A step must not consume a state that a listener, a save or the caller may have.
    program = plan.program if is_lent(session.train) else plan.donating
    session.train, step_metrics = make_move(program, session.train, move)
    session.has_drawn = False
    # The data knows the length of its epoch at the first batch, and may correct it at the last.
    known = before.batch > 0 and not move.ends_epoch
    session.move_to(before.batches if known else session.source.length, before)
    after, row = session.train.counters, None
    assert step_metrics is not None, "the move has a step"
    if after.step > counters.step:  # not so for an empty batch
        plan.evaluations.check_names(step_metrics)
        row = {"step": after.step, "epoch": counters.epoch, **step_metrics}
        session.recorder.add(row, after.samples - counters.samples)
    is_last = session.place.limit is not None
    session.due = plan.due(before, session.place.now, move.ends_epoch, is_last)
    if row is not None and session.listeners.wants(events.BatchEnd):
        session.emit(events.BatchEnd(session.train, step_metrics), row)


def _end_epoch(session: Session, due: Due) -> None:
    # Rank 0 has the metrics of its listeners, too.
    whole = session.ranks.broadcast(metrics.mean(session.loop.sums))
    # A member that stopped within the epoch has no mean of it, as a run that ends there has none.
    means = in_fit(session.plan.program).reported(session.train, whole)
    session.loop = attrs.evolve(session.loop, sums={})
    row = due.row_with({f"epoch/{name}": value for name, value in means.items()})
    session.mark_done(epoch_end=False, row=row)
    session.emit(events.EpochEnd(session.train, session.train.counters.epoch - 1, means, True))


def _evaluate(session: Session, due: Due) -> tuple[dict[str, Any], dict[str, Mode]]:
    """Evaluate the whole state on every rank; the numbers of rank 0 count."""
    program, evaluations = session.plan.program, session.plan.evaluations
    whole, asked = program.gathered(session.train), session.is_interrupted
    return session.ranks.broadcast(
        evaluations.evaluated(program, whole, due.evaluate, session.emit, asked)
    )


def _decide(session: Session, due: Due, found: dict[str, Any], directions: dict[str, Mode]) -> None:
    """Decide on best, early stop and plateau by the metrics of an evaluation."""
    evaluations, loop = session.plan.evaluations, session.loop
    complete = len(due.evaluate) == len(evaluations.sets)
    seen = {k: v for k, v in (due.row or {}).items() if k.startswith("epoch/")} | found
    if session.ranks.leads:  # the rows of a resumed run are on rank 0 only
        prefixes = evaluations.prefixes(is_averaged(session.train))
        monitored = session.decisions.monitored()
        check_given(monitored, seen, due.evaluate, prefixes, session.recorder.rows)
    session.decisions = session.decisions.directed(seen, directions)
    if session.checkpointer is not None:
        session.checkpointer.described["monitored"] = session.decisions.record()
    session.loop, session.train = session.decisions.after(loop, session.train, seen, complete)
    improved = session.loop.best is not loop.best
    if improved and session.plan.restore_best:
        in_memory = session.checkpointer is None
        session.best_state = lend(session.train) if in_memory else None
    happened, columns = session.decisions.events(loop, session.loop, session.train)
    row = due.row_with({**found, **columns})
    session.mark_done(evaluate=[], row=row, save=due.save or improved)
    for event in happened:
        session.emit(event)
    if detail := session.loop.early_stop.get("stop"):
        session.emit(events.EarlyStopped(session.train, detail))


def _save_if_due(session: Session, due: Due, found: dict[str, Any]) -> None:
    """Write the finished row, and a checkpoint in which nothing is due."""
    session.due = None
    session.recorder.write([due.row] if due.row else [])
    if due.save or session.loop.early_stop.get("stop"):
        session.save(found)
