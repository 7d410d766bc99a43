"""The study: which trial is next, and what is told of it. All of it survives the process.

A trial belongs to the process that holds the lock of its directory. One that the study has as
running and that nobody holds was interrupted: whoever comes next goes on with it.
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
from functrain.search import choosing
from functrain.search.manifest import trial_directory
from functrain.search.trials import Outcome

FILE_NAME = "study.db"
_EXHAUSTED = "exhausted"
_PATIENCE = 60  # seconds that a process waits for another one's write
_STATES = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}


def open_study(directory: Path, direction: str, pruner: Any, new: bool = True) -> Any:
    """The study of a search, made where there is none.

    Args:
        directory: of the search.
        direction: ``minimize`` or ``maximize``.
        pruner: an Optuna pruner, or what has its ``prune``.
        new: whether it may be made.

    Returns:
        An ``optuna.Study``, in ``study.db``.

    Raises:
        SearchError: there is none, and none may be made.
        MissingExtraError: Optuna is not installed.
    """
    optuna, path = require("optuna", "search"), directory / FILE_NAME
    if not (new or path.exists()):
        raise SearchError(f"{directory} holds no search: it has no {FILE_NAME}")
    make_directories(directory)
    with directory_lock(directory):  # two processes may not both make the tables
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": _PATIENCE}}
        )
        return optuna.create_study(
            study_name="search",
            storage=storage,
            direction=direction,
            pruner=pruner,
            load_if_exists=True,
        )


@attrs.frozen
class Queue:
    """Trials of a study, one by one.

    Attributes:
        study: an ``optuna.Study``.
        directory: of the search.
        sampler: options of :func:`functrain.search.choosing.sampler`.
        trials: how many there are to be in all.
    """

    study: Any
    directory: Path
    sampler: Mapping[str, Any]
    trials: int

    @contextlib.contextmanager
    def next(self) -> Iterator[Any]:
        """The next trial, this process's own for the length of the block.

        Yields:
            An ``optuna.Trial``, interrupted ones first; ``None`` when no more are to be begun.
        """
        with contextlib.ExitStack() as held:
            with directory_lock(self.directory):
                trial = self._interrupted(held) or self._new(held)
            yield trial

    def tell(self, trial: Any, outcome: Outcome) -> None:
        """Say what came of a trial."""
        state = require("optuna.trial", "search").TrialState[_STATES[outcome.state]]
        for name in ("detail", "values", "std", "seconds"):
            trial.set_user_attr(name, getattr(outcome, name))
        value = outcome.value if outcome.state == "complete" else None
        try:
            self.study.tell(trial, value, state=state)
        except RuntimeError:
            # By study.stop(), which raises outside of study.optimize, samplers say that they have
            # been through a finite space. The trial is told by then.
            if not self._of(trial.number).state.is_finished():
                raise
            self.study.set_user_attr(_EXHAUSTED, True)

    @property
    def exhausted(self) -> bool:
        """Whether every point of the space was tried."""
        return bool(self.study.user_attrs.get(_EXHAUSTED))

    def _interrupted(self, held: contextlib.ExitStack) -> Any:
        optuna = require("optuna", "search")
        running = optuna.trial.TrialState.RUNNING
        for frozen in self.study.get_trials(deepcopy=False, states=(running,)):
            with contextlib.ExitStack() as mine:
                try:
                    mine.enter_context(locked(trial_directory(self.directory, frozen.number)))
                except RunDirectoryBusyError:
                    continue
                if self._of(frozen.number).state.is_finished():
                    continue  # whoever held it has told it since the study was read
                held.enter_context(mine.pop_all())
            self.study.sampler = choosing.sampler(self.sampler, frozen.number)
            # Optuna has no other way to take up a running trial: enqueue_trial would make a new
            # one, with another number and directory.
            return optuna.trial.Trial(self.study, frozen._trial_id)
        return None

    def _new(self, held: contextlib.ExitStack) -> Any:
        states = [trial.state.name for trial in self.study.get_trials(deepcopy=False)]
        begun = len(states) - states.count("WAITING")
        if begun >= self.trials or self.exhausted:
            return None
        self.study.sampler = choosing.sampler(self.sampler, begun)
        trial = self.study.ask()
        held.enter_context(locked(trial_directory(self.directory, trial.number)))
        return trial

    def _of(self, number: int) -> Any:
        return self.study.get_trials(deepcopy=False)[number]
