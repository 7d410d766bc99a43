"""The past of a resumed run that its decisions need: logged evaluations, and the best state."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from functrain.checkpoint import Checkpoints
from functrain.checkpoint.run_state import LoopState, RunState
from functrain.core.state import TrainState
from functrain.errors import NoCheckpointError, ResumeWarning
from functrain.errors.base import warn
from functrain.metrics.log_file import FILE_NAME, Row, read
from functrain.training.choosing import parent_of
from functrain.training.decisions import shown
from functrain.training.early_stopping.rule import find
from functrain.training.resume import restore
from functrain.training.session import Session


def logged_evaluations(session: Session, saved: RunState, path: Path) -> Callable[[], list[Row]]:
    """Return a function that reads the metrics of each evaluation up to a checkpoint."""
    log, last = path.parent / FILE_NAME, saved.train.counters.step
    names = session.plan.evaluations.prefixes(saved.train.ema is not None)
    evaluated = tuple(f"{name}/" for name in names)

    def read_rows() -> list[Row]:
        rows = read(log) if session.ranks.leads and log.exists() else []
        wanted = (*evaluated, "epoch/")
        found = [
            {name: value for name, value in row.items() if name.startswith(wanted)}
            for row in rows
            if row["step"] <= last and any(name.startswith(evaluated) for name in row)
        ]
        return session.ranks.broadcast(found)

    return functools.cache(read_rows)


def with_best(
    session: Session, train: TrainState, loop: LoopState, path: Path, ended: str | None
) -> LoopState:
    """Load the best state so far unless the run directory has it; without it, forget the best."""
    best, checkpointer, world = loop.best, session.checkpointer, session.ranks.world
    if best["step"] == train.counters.step:
        session.best_state = train
        return loop
    here = checkpointer is not None and best["step"] in checkpointer.store.steps()
    look = session.ranks.leads and not here
    found = _find_best(path, best, session.decisions.monitor) if look else None
    here, found = world.broadcast((here, found))
    if here:
        return loop
    if found is not None:
        program = session.plan.program
        session.best_state = restore(Checkpoints(found.parent), program, found, world)[0].train
        return loop
    lost = (
        f"restore_best: no checkpoint holds the best state of the run in {path.parent} so far, "
        f"{shown(best['value'])} at step {best['step']}"
    )
    if ended:
        raise NoCheckpointError(
            errno.ENOENT, f"{lost}. Leave restore_best out for the state of its last step"
        )
    warn(f"{lost}, so the best begins from scratch", ResumeWarning)
    return attrs.evolve(loop, best={"value": None, "step": None})


def _find_best(path: Path, best: dict[str, Any], monitor: str) -> Path | None:
    """Return the checkpoint of the best state so far, in the run of a checkpoint or those before.

    A run that was resumed from another one has it there until it finds a better one. A checkpoint
    counts only if it has the same value, because a directory may hold another run by now.
    """
    seen: set[Path] = set()
    while path.parent not in seen:
        seen.add(path.parent)
        store = Checkpoints(path.parent)
        entry = store.entries().get(best["step"])
        if entry is not None and find(entry.metrics, monitor) == best["value"]:
            return store.path(best["step"])
        path = Path(parent_of(store) or path)
    return None
