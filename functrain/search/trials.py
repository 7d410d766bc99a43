"""One trial of a search: a run for each seed, and what it comes to."""

from __future__ import annotations

import math
import statistics
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import attrs

from functrain.errors import SearchError
from functrain.errors.nearest import nearest
from functrain.search.listener import Pruning
from functrain.search.manifest import Ended, read_trial, write_trial
from functrain.training.events import Listener
from functrain.training.history import History, Run

# (parameters, seed, run directory, listeners) -> the run that ``ft.fit`` gave with them
Objective: TypeAlias = Callable[[dict[str, Any], int, Path, list[Listener]], Run]


@attrs.frozen
class Goal:
    """What is measured of a run.

    Attributes:
        metric: name in the run's history; as in ``EarlyStop``, ``"loss"`` stands for
            ``"eval/loss"``.
        maximize: whether more is better.
        best: whether the best value of a run counts, or the last.
    """

    metric: str
    maximize: bool
    best: bool

    def measured(self, history: History) -> float | None:
        """The value of a run; ``None`` where the metric was not measured."""
        present = [n for n in (f"eval/{self.metric}", self.metric) if n in history.names()]
        if not present:
            return None
        values = history[present[0]]
        finite = [value for value in values if math.isfinite(value)]
        if not self.best or not finite:
            return values[-1]
        return max(finite) if self.maximize else min(finite)


@attrs.frozen
class Outcome:
    """What came of a trial.

    Attributes:
        state: ``complete``, ``pruned``, ``failed`` or ``interrupted``.
        detail: in words.
        values: of the seeds, in their order.
        seconds: time trained, over all seeds.
        error: whether it failed by an exception.
    """

    state: str
    detail: str
    values: tuple[float, ...] = ()
    seconds: float = 0.0
    error: bool = False

    @property
    def value(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Standard deviation over the seeds, where there are several (divided by n - 1)."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


def run_trial(
    objective: Objective,
    goal: Goal,
    trial: Any,
    params: dict[str, Any],
    seeds: tuple[int, ...],
    directory: Path,
) -> Outcome:
    """Run what is left of a trial.

    Only the first seed can be pruned: there, values of one step and seed are compared.

    Args:
        objective: what runs a seed.
        goal: what counts.
        trial: an ``optuna.Trial``.
        params: by dotted name.
        seeds: in order.
        directory: of the trial.

    Raises:
        SearchError: the runs do not measure the metric, or ``objective`` returns no run.
    """
    done = read_trial(directory)
    for seed in seeds:
        if seed not in done:
            pruning = _pruning(trial, goal.metric) if seed == seeds[0] else None
            listeners = [] if pruning is None else [pruning]
            try:
                run = objective(dict(params), seed, directory / f"seed-{seed}", listeners)
            except Exception as error:  # not hidden: told with its place, and kept whole
                if isinstance(error.__cause__, SearchError):  # no other trial would do better
                    raise error.__cause__ from None
                return _failed(error, directory, seed)
            if _checked(run).reason == "interrupted":
                return Outcome("interrupted", run.detail)
            done[seed] = _ended(run, goal, pruning)
            write_trial(directory, params, done)
        if done[seed].reason == "pruned" or done[seed].value is None:
            break
    return _outcome([(seed, done[seed]) for seed in seeds if seed in done])


def _pruning(trial: Any, metric: str) -> Pruning:
    known = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
    return Pruning(trial, metric, set(known))


def _checked(run: Any) -> Run:
    if isinstance(run, Run):
        return run
    raise SearchError(
        f"the objective must return the Run that functrain.fit gives, got {type(run).__name__}"
    )


def _ended(run: Run, goal: Goal, pruning: Pruning | None) -> Ended:
    """What a run that ended by itself comes to."""
    value, reason, detail = goal.measured(run.history), run.reason, run.detail
    # A run that a limit ended at the step of its pruning is complete.
    if pruning is not None and reason == "listener" and detail == pruning.detail:
        reason = "pruned"
    elif reason == "nonfinite":
        value = None
    elif value is None and reason != "listener":
        names = run.history.names()
        raise SearchError(
            f"metric: the runs do not measure {goal.metric!r}{nearest(goal.metric, names)}; "
            f"they measure {', '.join(names)}"
        )
    elif value is None or not math.isfinite(value):
        what = "was not measured" if value is None else f"is {value}"
        value, detail = None, f"{goal.metric} {what} ({detail})"
    return Ended(value, reason, detail, run.state.counters.step, run.seconds)


def _outcome(found: list[tuple[int, Ended]]) -> Outcome:
    seconds = sum(ended.seconds for _, ended in found)
    seed, last = found[-1]
    if last.reason == "pruned":
        return Outcome("pruned", last.detail, seconds=seconds)
    if last.value is None:
        return Outcome("failed", f"seed {seed}: {last.reason}: {last.detail}", seconds=seconds)
    values = tuple(ended.value for _, ended in found if ended.value is not None)
    return Outcome("complete", last.detail, values, seconds)


def _failed(error: Exception, directory: Path, seed: int) -> Outcome:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "error.txt").write_text("".join(traceback.format_exception(error)))
    said = (str(error).strip() or "no message").splitlines()[0]
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    return Outcome("failed", f"seed {seed}: {type(error).__name__}: {said} ({where})", error=True)
