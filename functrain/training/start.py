"""How a session starts: from scratch, from a given state, or from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from functrain.checkpoint import Checkpoints
from functrain.checkpoint.run_state import LoopState, RunState
from functrain.core.state import lend
from functrain.data.description import outline
from functrain.data.source import take_seed, takes_seed
from functrain.schedules.schedule_end import ScheduleEnd, scheduled, with_resumed_schedule
from functrain.training import changes, compatibility
from functrain.training.choosing import Resume, choose
from functrain.training.events import TrainBegin
from functrain.training.limits import Position
from functrain.training.log_owner import Writer
from functrain.training.metrics_log import Recorder
from functrain.training.one_model import in_fit
from functrain.training.plan import Due
from functrain.training.resume import copy_log, restore, set_aside, whole
from functrain.training.resumed_decisions import logged_evaluations, with_best
from functrain.training.run_record import Record, is_given, record_initial, record_run
from functrain.training.session import Beginning, Session


@attrs.frozen
class Given:
    """What ``fit`` was given about the beginning of a run.

    Attributes:
        state: where a new run begins.
        seed: of a new run.
        steps: the updates that the limits allow, where known.
    """

    state: Any
    seed: int | None
    resume: Resume
    schedule_end: ScheduleEnd
    steps: int | None


def start(session: Session, given: Given) -> None:
    """Give a session its first state, and emit ``TrainBegin``."""
    plan, ranks = session.plan, session.ranks
    if given.state is not None:
        plan.program.require(given.state)
    shown = {"resume": given.resume, "directory": session.directory, "seed": given.seed}
    others = {**shown, "monitored": session.decisions.record()}
    texts = {**plan.describe(), **{name: str(value) for name, value in others.items()}}
    ranks.require_same_run(plan.program, session.source, texts)
    # Only rank 0 looks at the directory, which may look otherwise to others or a moment later.
    chosen = ranks.broadcast(choose(_store(session), given.resume) if ranks.leads else None)
    path, ended, idle_seed = None, None, None
    if chosen is None:
        idle_seed = _idle_seed(session, given)
        _start_new(session, given)
    else:
        path, ended = _resume(session, chosen, given)
    if session.checkpointer is not None:
        session.checkpointer.described["monitored"] = session.decisions.record()
        session.checkpointer.described["batch_limits"] = plan.batch_limits.describe()
    session.plan = plan.guarded(given.steps, given.schedule_end)
    session.beginning = Beginning.of(session.train, idle_seed)
    batches, rank = session.source.length, ranks.world.rank
    config = _config(session, path)
    session.emit(TrainBegin(session.train, given.steps, batches, path, ended, rank, config))


def _idle_seed(session: Session, given: Given) -> int | None:
    """Return the seed of a new run if neither its weights nor its data follow from it."""
    has_weights = given.state is None and is_given(session.plan.program)
    return given.seed if has_weights and not takes_seed(session.source) else None


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


def _seed_data(session: Session, seed: int) -> None:
    """Let data without a seed take one, and record it."""
    take_seed(session.source, seed)
    if session.checkpointer is not None:
        session.checkpointer.described["data"] |= outline(session.source)


def _start_new(session: Session, given: Given) -> None:
    program, state = session.plan.program, given.state
    if state is None:
        # Whole at first: each rank might have drawn other weights.
        state = whole(program).init(0 if given.seed is None else given.seed)
    else:
        state = compatibility.count_epochs(lend(state), session.source)
        compatibility.check_seed(given.seed, state, None)
        in_fit(program).require_unfinished(state)
    gathered = program.gathered(state)
    session.ranks.require_same_state(gathered)
    _seed_data(session, state.rng.seed)
    if session.checkpointer is not None:
        initial = record_initial(program, gathered, given.state is not None)
        session.checkpointer.described["initial"] = initial
    session.train = scheduled(program, program.place(state), given.steps, given.schedule_end)
    session.loop = LoopState.initial(session.decisions.initial())
    session.move_to(session.source.length, None)
    directory = session.directory if session.ranks.leads else None
    session.recorder = Recorder.begin(directory, 0, Writer.of(_config(session, None)))


def _resume(
    session: Session, chosen: tuple[Path, int | str | Path], given: Given
) -> tuple[Path, str | None]:
    """Check and load a checkpoint; return its path, and how its run ended if nothing is left."""
    plan, batches = session.plan, session.source.length
    directory, which = chosen
    store = _store(session)
    origin = store if store and store.directory == directory else Checkpoints(directory)
    saved, info, path = restore(origin, plan.program, which, session.ranks.world)
    info = in_fit(plan.program).check_record(info, path, saved.train)
    plan.batch_limits.check(info, path)
    compatibility.check_position(saved.train, batches)
    compatibility.check_seed(given.seed, saved.train, path)
    rows = logged_evaluations(session, saved, path)
    loop = session.decisions.resumed(saved.loop, info.get("monitored"), rows)
    ended = compatibility.ended_before(saved, loop, info, plan.limits, batches)
    _check_record(session, given, saved.train, info, path, ended)
    before = Position.read(info.get("before_last_step"), batches)
    _warn_of_end(session, saved, loop, before, path, ended)
    if plan.restore_best and isinstance(loop.best["step"], int):
        loop = with_best(session, saved.train, loop, path, ended)
    train = with_resumed_schedule(plan.program, saved.train, given.steps, given.schedule_end)
    _load(session, attrs.evolve(saved, train=train, loop=loop), origin, info, path)
    session.move_to(batches, before)
    return path, ended


def _check_record(
    session: Session, given: Given, saved: Any, info: Record, path: Path, ended: str | None
) -> None:
    """Compare the program, the data and the given state with those of the run."""
    # Earlier versions gave Batches without a seed 0.
    recorded = (info.get("data") or {}).get("seed")
    _seed_data(session, saved.rng.seed if recorded is None else recorded)
    plan, program, state = session.plan, session.plan.program, given.state
    checkpointer = session.checkpointer
    now = record_run(plan, session.source) if checkpointer is None else checkpointer.described
    changes.check_unchanged(now, info, path, ended)
    compatibility.check_unused(state, saved)
    if given.resume is not True or (state is None and not is_given(program)):
        return  # the weights that a factory makes are a function of the seed
    began = whole(program).init(saved.rng.seed) if state is None else state
    if began.counters.step == 0:
        changes.check_initial(record_initial(program, began, state is not None), info, path)


def _warn_of_end(
    session: Session,
    saved: RunState,
    loop: LoopState,
    before: Position | None,
    path: Path,
    ended: str | None,
) -> None:
    """Warn of a run that went on beyond the limits or rules of this call."""
    changed = loop.early_stop is not saved.loop.early_stop
    if ended:
        limit = None if before is None else session.plan.limits.reached(before)
        stopped = loop.early_stop.get("stop") if changed else None
        at, steps = saved.train.counters.step, session.plan.total_steps(session.source.length)
        compatibility.warn_of_longer_run(at, steps, limit, stopped, path)
    if changed:
        in_fit(session.plan.program).warn_of_stopped(saved.train, path)


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
