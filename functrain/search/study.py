"""A study in a database, and the queue of its trials, shared by several processes.

A trial belongs to the process that holds the lock of its directory. A trial that is running in
the study without a lock was interrupted, and the next process resumes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from functrain.checkpoint.run_directory import locked
from functrain.checkpoint.storage.files import directory_lock, make_directories
from functrain.errors import RunDirectoryBusyError, SearchError
from functrain.errors.optional import require
from functrain.search.factories import make_sampler
from functrain.search.manifest import trial_directory
from functrain.search.space import Space, suggest
from functrain.search.trials import TrialResult

FILE_NAME = "study.db"
_EXHAUSTED = "exhausted"
_PATIENCE = 60  # seconds to wait for another process that writes
_STATES = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}


def open_study(directory: Path, direction: str, pruner: Any, new: bool = True) -> Any:
    """Open the study of a search, or create it."""
    optuna, path = require("optuna", "search"), directory / FILE_NAME
    if not (new or path.exists()):
        raise SearchError(f"{directory} is not a search: it has no {FILE_NAME}")
    make_directories(directory)
    with directory_lock(directory):  # only one process may create the tables
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": _PATIENCE}}
        )
        with _quiet(optuna.logging):
            return optuna.create_study(
                study_name="search",
                storage=storage,
                direction=direction,
                pruner=pruner,
                load_if_exists=True,
            )


@contextlib.contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Silence what Optuna logs of a study, which ``search`` reports itself."""
    level = logging.get_verbosity()
    logging.set_verbosity(max(level, logging.WARNING))
    try:
        yield
    finally:
        logging.set_verbosity(level)


@attrs.frozen(eq=False)
class Drawn:
    """A trial with its parameters."""

    trial: Any
    params: dict[str, Any]
    resumed: bool


@attrs.frozen
class TrialQueue:
    """The trials of a study, one after the other.

    Attributes:
        sampler: options of :func:`functrain.search.factories.make_sampler`.
        trials: the total number of trials.
    """

    study: Any
    directory: Path
    sampler: Mapping[str, Any]
    trials: int
    space: Space

    @contextlib.contextmanager
    def next(self) -> Iterator[Drawn | None]:
        """Draw a trial and lock it for the length of the block, an interrupted one first."""
        with contextlib.ExitStack() as held:
            with directory_lock(self.directory):
                trial = self._interrupted(held)
                resumed = trial is not None
                trial = trial if resumed else self._new(held)
                drawn = trial and Drawn(trial, suggest(self.space, trial), resumed)
            yield drawn

    def _interrupted(self, held: contextlib.ExitStack) -> Any:
        """Lock and return a running trial that no other process has, if there is one."""
        optuna = require("optuna", "search")
        running = optuna.trial.TrialState.RUNNING
        for frozen in self.study.get_trials(deepcopy=False, states=(running,)):
            with contextlib.ExitStack() as mine:
                try:
                    mine.enter_context(locked(trial_directory(self.directory, frozen.number)))
                except RunDirectoryBusyError:
                    continue
                if self._is_finished(frozen.number):
                    continue  # another process has finished it since the study was read
                held.enter_context(mine.pop_all())
            self.study.sampler = make_sampler(self.sampler, frozen.number)
            # Optuna has no other way to resume a running trial: enqueue_trial would create a new
            # one, with another number and directory.
            return optuna.trial.Trial(self.study, frozen._trial_id)
        return None

    def _new(self, held: contextlib.ExitStack) -> Any:
        """Draw and lock a new trial; ``None`` if no trial is left."""
        states = [trial.state.name for trial in self.study.get_trials(deepcopy=False)]
        begun = len(states) - states.count("WAITING")
        if begun >= self.trials or self.exhausted:
            return None
        self.study.sampler = make_sampler(self.sampler, begun)
        trial = self.study.ask()
        held.enter_context(locked(trial_directory(self.directory, trial.number)))
        return trial

    def tell(self, trial: Any, result: TrialResult) -> None:
        """Store the result of a trial."""
        state = require("optuna.trial", "search").TrialState[_STATES[result.state]]
        for name in ("detail", "values", "std", "seconds"):
            trial.set_user_attr(name, getattr(result, name))
        value = result.value if result.state == "complete" else None
        self.study.sampler = make_sampler(self.sampler, trial.number)
        try:
            self.study.tell(trial, value, state=state)
        except RuntimeError:
            # Samplers call study.stop() when a finite space is exhausted, which raises outside of
            # study.optimize. The trial is already stored then.
            if not self._is_finished(trial.number):
                raise
            self.study.set_user_attr(_EXHAUSTED, True)

    @property
    def exhausted(self) -> bool:
        """Whether every point of the space was tried."""
        return bool(self.study.user_attrs.get(_EXHAUSTED))

    def _is_finished(self, number: int) -> bool:
        trial = self.study.get_trials(deepcopy=False)[number]
        return bool(trial.state.is_finished())
