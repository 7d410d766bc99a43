"""How a session starts: from scratch, from a given state, or from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from functrain.checkpoint import Checkpoints
from functrain.checkpoint.run_state import LoopState, RunState
from functrain.core.state import TrainState, lend
from functrain.data.description import outline
from functrain.data.source import take_seed, takes_seed
from functrain.schedules.schedule_end import ScheduleEnd, scheduled, with_resumed_schedule
from functrain.training import changes, compatibility
from functrain.training.choosing import Resume, choose
from functrain.training.events import TrainBegin
from functrain.training.log_owner import Writer
from functrain.training.metrics_log import Recorder
from functrain.training.one_model import in_fit
from functrain.training.plan import Due
from functrain.training.resume import copy_log, restore, set_aside, whole
from functrain.training.resumed_decisions import logged_evaluations, with_best
from functrain.training.run_record import is_given, record_initial, record_run
from functrain.training.session import Beginning, Session


def start(
    session: Session,
    state: Any,
    seed: int | None,
    resume: Resume,
    schedule_end: ScheduleEnd,
) -> None:
    """Give a session its first state, and emit ``TrainBegin``."""
    if state is not None:
        session.plan.program.require(state)
    steps = session.plan.total_steps(session.source.length)
    ranks = session.ranks
    others = {"resume": str(resume), "directory": str(session.directory), "seed": str(seed)}
    plan = {**session.plan.describe(), **others, "monitored": str(session.decisions.record())}
    ranks.require_same_run(session.plan.program, session.source, plan)
    # Only rank 0 looks at the directory, which may look otherwise to others or a moment later.
    chosen = ranks.broadcast(choose(_store(session), resume) if ranks.leads else None)
    path, ended, idle_seed = None, None, None
    if chosen is None:
        if state is None and is_given(session.plan.program) and not takes_seed(session.source):
            idle_seed = seed
        _start_new(session, state, seed, steps, schedule_end)
    else:
        path, ended = _resume(session, chosen, state, seed, resume, steps, schedule_end)
    if session.checkpointer is not None:
        session.checkpointer.described["monitored"] = session.decisions.record()
        session.checkpointer.described["batch_limits"] = session.plan.batch_limits.describe()
    session.plan = session.plan.guarded(steps, schedule_end)
    session.beginning = attrs.evolve(Beginning.of(session.train), idle_seed=idle_seed)
    batches, rank = session.source.length, ranks.world.rank
    config = _config(session, path)
    session.emit(TrainBegin(session.train, steps, batches, path, ended, rank, config))


def _store(session: Session) -> Checkpoints | None:
    return None if session.checkpointer is None else session.checkpointer.store


def _config(session: Session, path: Path | None) -> dict[str, Any]:
    """Return the configuration of a run as plain data, as trackers show it."""
    own = None if session.directory is None else session.directory.resolve()
    forked = path is not None and path.parent.resolve() != own
    program = session.plan.program
    fixed = [leaf.fixed for leaf in program.leaves().values()]
    trained = (one.model.params[path].numel() for one in fixed for path in one.trainable)
    return {
        **program.recipe.describe(),
        "trained_parameters": sum(trained),
        "data": outline(session.source),
        "fit": {
            "seed": session.train.rng.seed,
            **session.plan.describe(),
            **({"parent": str(path)} if forked else {}),
        },
    }


def _start_new(
    session: Session,
    state: TrainState | None,
    seed: int | None,
    steps: int | None,
    schedule_end: ScheduleEnd,
) -> None:
    program, given = session.plan.program, state is not None
    if state is None:
        # Whole at first: each rank might have drawn other weights.
        state = whole(program).init(0 if seed is None else seed)
    else:
        state = compatibility.count_epochs(lend(state), session.source)
        compatibility.check_seed(seed, state, None)
        in_fit(program).require_unfinished(state)
    session.ranks.require_same_state(program.gathered(state))
    take_seed(session.source, state.rng.seed)
    if session.checkpointer is not None:
        initial = record_initial(program, program.gathered(state), given)
        begun = {**record_run(session.plan, session.source), "initial": initial}
        session.checkpointer.described = begun
    session.train = scheduled(program, program.place(state), steps, schedule_end)
    session.loop = LoopState.initial(session.decisions.initial())
    session.move_to(session.source.length, None)
    directory = session.directory if session.ranks.leads else None
    session.recorder = Recorder.begin(directory, 0, Writer.of(_config(session, None)))


def _resume(
    session: Session,
    chosen: tuple[Path, int | str | Path],
    state: TrainState | None,
    seed: int | None,
    resume: Resume,
    steps: int | None,
    schedule_end: ScheduleEnd,
) -> tuple[Path, str | None]:
    """Check and load a checkpoint; return its path, and how its run ended if nothing is left."""
    program, batches = session.plan.program, session.source.length
    directory, which = chosen
    store = _store(session)
    origin = store if store and store.directory == directory else Checkpoints(directory)
    saved, info, path = restore(origin, program, which, session.ranks.world)
    info = in_fit(program).check_record(info, path, saved.train)
    session.plan.batch_limits.check(info, path)
    compatibility.check_position(saved.train, batches)
    compatibility.check_seed(seed, saved.train, path)
    loop = session.decisions.resumed(
        saved.loop, info.get("monitored"), logged_evaluations(session, saved, path)
    )
    limits = session.plan.limits
    ended = compatibility.ended_before(saved, loop, info, limits, batches)
    # Earlier versions gave Batches without a seed 0.
    recorded = (info.get("data") or {}).get("seed")
    take_seed(session.source, saved.train.rng.seed if recorded is None else recorded)
    now = record_run(session.plan, session.source)
    if session.checkpointer is not None:
        session.checkpointer.described = now
    changes.check_unchanged(now, info, path, ended)
    compatibility.check_unused(state, saved.train)
    if resume is True:
        _check_initial(program, state, saved.train, info, path)
    before = compatibility.before_last_step(info, batches)
    changed = loop.early_stop is not saved.loop.early_stop
    if ended:
        limit = None if before is None else limits.reached(before)
        stopped = loop.early_stop.get("stop") if changed else None
        at = saved.train.counters.step
        compatibility.warn_of_longer_run(at, steps, limit, stopped, path)
    if changed:
        in_fit(program).warn_of_stopped(saved.train, path)
    if session.plan.restore_best and isinstance(loop.best["step"], int):
        loop = with_best(session, saved.train, loop, path, ended)
    train = with_resumed_schedule(program, saved.train, steps, schedule_end)
    _load(session, attrs.evolve(saved, train=train, loop=loop), origin, info, path)
    session.move_to(batches, before)
    return path, ended


def _load(
    session: Session, saved: RunState, origin: Checkpoints, info: dict[str, Any], path: Path
) -> None:
    """Go on from a checkpoint of this run directory, or of another whose log is copied."""
    session.train, session.loop, session.data_state = saved.train, saved.loop, saved.data
    session.due = Due.read(session.loop.owed)
    session.started -= info.get("seconds", 0.0)
    checkpointer, writer = session.checkpointer, None
    if checkpointer is not None and session.directory == origin.directory:
        checkpointer.resume(session.train.counters.step, session.due is None, info)
        if session.ranks.leads:
            set_aside(origin, session.train.counters.step)
    else:
        log_bytes = 0
        if checkpointer is not None:
            if session.ranks.leads:
                own = checkpointer.store.directory
                log_bytes = copy_log(path, own, session.loop.log_bytes)
            checkpointer.described["parent"] = str(path.absolute())
        session.loop = attrs.evolve(session.loop, log_bytes=log_bytes)
        writer = Writer.of(_config(session, path))
    directory = session.directory if session.ranks.leads else None
    session.recorder = Recorder.begin(directory, session.loop.log_bytes, writer)
    session.listeners.load_states(saved.listeners)


def _check_initial(program: Any, state: Any, saved: Any, info: dict[str, Any], path: Path) -> None:
    """Compare the weights of a given state or module with those that the run began with."""
    if state is None and not is_given(program):  # a factory's are a function of the seed
        return
    began = whole(program).init(saved.rng.seed) if state is None else state
    if began.counters.step == 0:
        changes.check_initial(record_initial(program, began, state is not None), info, path)
