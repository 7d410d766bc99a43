"""The loop: the order of a step, and the steps of a run.

Read ``_step`` for the order in which everything happens. The train step and the decisions are pure;
effects (clock, signals, files) are in the session.
"""

from __future__ import annotations

from typing import Any

import attrs

from functrain import metrics
from functrain.core.batch import Batch
from functrain.core.batch_splitting import require_sizes
from functrain.core.schedule import Mode
from functrain.core.state import is_averaged, lend, with_fields
from functrain.errors import NonFiniteError, NonFiniteWarning
from functrain.errors.base import warn
from functrain.training import events, saving
from functrain.training.compatibility import warn_of_replay
from functrain.training.evaluation import Interrupted
from functrain.training.finish import ended, interrupted, save_after, stop_requested
from functrain.training.iteration import EpochProgress
from functrain.training.limits import Ending
from functrain.training.monitored import check_given
from functrain.training.one_model import in_fit
from functrain.training.session import Session


def run(session: Session) -> Ending:
    """Make steps until something ends the run.

    Any exception leaves a checkpoint of the last good state behind before it is raised again.
    """
    try:
        session.update_position(session.source.length)
        ending = _step(session)
        if ending is None:
            warn_of_replay(session.train, session.source)
            ending = _epochs(session)
        return ending
    except NonFiniteError as error:
        warn(f"the run ends: {error}", NonFiniteWarning)
        return Ending("nonfinite", str(error))
    except BaseException as error:
        save_after(session, error)
        raise


def _epochs(session: Session) -> Ending:
    while True:
        epoch = session.train.counters.epoch
        session.emit(events.EpochBegin(session.train, epoch))
        progress = EpochProgress.begin(session.train.counters)
        for batch, ends_epoch in session.batches():
            ending = _step(session, batch, ends_epoch)
            progress.after(session.counters, ends_epoch)
            if ending is not None:
                return ending
        if session.train.counters.epoch == epoch:
            # The data ended before its own length said so, or had no more of this epoch.
            progress.end()
            counters = session.train.counters.next_epoch()
            session.train = with_fields(session.train, counters=counters)
            session.update_position(session.source.length)
            if session.limit is not None:
                return session.limit


def _step(session: Session, batch: Batch | None = None, ends_epoch: bool = False) -> Ending | None:
    """Make one step, always in this order; without a batch, finish the last step of a resumed run.

    The train step notes in the loop state what is due, and each part is marked as it is done. A
    kill or an exception in between thus leaves a checkpoint from which the rest is done later.
    """
    if batch is not None:
        _train_step(session, batch, ends_epoch)
    if session.pending is not None:
        session.flush()
        if session.pending["epoch_end"]:
            _end_epoch(session)
        found: dict[str, Any] = {}
        if session.pending["evaluate"]:
            try:
                found, directions = _evaluate(session)
            except Interrupted:
                return interrupted(session)
            _decide(session, found, directions)
        _save_if_due(session, found)
    saving.poll(session)
    return ended(session) or (None if batch is None else stop_requested(session))


def _train_step(session: Session, batch: Batch, ends_epoch: bool) -> None:
    """Train on a batch, buffer its row, and note what is due after it."""
    plan = session.plan
    if session.listeners.wants(events.BatchBegin):
        session.emit(events.BatchBegin(session.train, batch))
    if plan.counts_samples:
        require_sizes(batch)
    before, counters = session.position, session.counters
    session.between_steps = False
    step_metrics = session.step(batch, ends_epoch)
    session.between_steps, session.before = True, before
    # The data knows the length of its epoch at the first batch, and may correct it at the last.
    known = before.batch > 0 and not ends_epoch
    session.update_position(before.batches if known else session.source.length)
    after = session.counters
    trained = after.step > counters.step  # not so for an empty batch
    if trained:
        plan.evaluations.check_names(step_metrics)
        row = {"step": after.step, "epoch": counters.epoch, **step_metrics}
        session.recorder.add(row, after.samples - counters.samples)
    due = plan.due(before, session.position, ends_epoch, session.limit is not None)
    if due is not None:
        session.loop = attrs.evolve(session.loop, owed=due)
    if trained and session.listeners.wants(events.BatchEnd):
        session.emit(events.BatchEnd(session.train, step_metrics), row)


def _end_epoch(session: Session) -> None:
    # Rank 0 has the metrics of its listeners, too.
    whole = session.world.broadcast(metrics.mean(session.loop.sums))
    # A member that stopped within the epoch has no mean of it, as a run that ends there has none.
    means = in_fit(session.plan.program).reported(session.train, whole)
    row = session.extended_row({f"epoch/{name}": value for name, value in means.items()})
    session.loop = attrs.evolve(session.loop, sums={})
    session.mark_done(epoch_end=False, row=row)
    session.emit(events.EpochEnd(session.train, session.train.counters.epoch - 1, means, True))


def _evaluate(session: Session) -> tuple[dict[str, Any], dict[str, Mode]]:
    """Evaluate the whole state on every rank; the numbers of rank 0 count."""
    found = session.plan.evaluations.evaluated(
        session.plan.program,
        session.plan.program.gathered(session.train),
        (session.pending or {})["evaluate"],
        session.emit,
        session.interrupted,
    )
    return session.world.broadcast(found)


def _decide(session: Session, found: dict[str, Any], directions: dict[str, Mode]) -> None:
    """Decide on best, early stop and plateau by the metrics of an evaluation."""
    evaluations, pending, best = session.plan.evaluations, session.pending or {}, session.loop.best
    complete = len(pending["evaluate"]) == len(evaluations.sets)
    seen = {k: v for k, v in (pending["row"] or {}).items() if k.startswith("epoch/")} | found
    prefixes = evaluations.prefixes(is_averaged(session.train))
    monitored = session.decisions.monitored()
    if session.leads:  # the rows of a resumed run are on rank 0 only
        check_given(monitored, seen, pending["evaluate"], prefixes, session.recorder.rows)
    session.decisions = session.decisions.directed(seen, directions)
    if session.checkpointer is not None:
        session.checkpointer.described["monitored"] = session.decisions.record()
    loop = session.loop
    session.loop, session.train = session.decisions.after(loop, session.train, seen, complete)
    improved = session.loop.best is not best
    if improved and session.plan.restore_best:
        session.best_state = lend(session.train) if session.store is None else None
    happened, columns = session.decisions.events(loop, session.loop, session.train)
    row = session.extended_row({**found, **columns})
    session.mark_done(evaluate=[], row=row, save=pending["save"] or improved)
    for event in happened:
        session.emit(event)
    if detail := session.loop.early_stop.get("stop"):
        session.emit(events.EarlyStopped(session.train, detail))


def _save_if_due(session: Session, found: dict[str, Any]) -> None:
    """Write the finished row, and a checkpoint in which nothing is pending."""
    pending = session.pending or {}
    session.loop = attrs.evolve(session.loop, owed=None)
    session.recorder.write([pending["row"]] if pending["row"] else [])
    if pending["save"] or session.loop.early_stop.get("stop"):
        saving.save(session, found)
