"""One trial of a search: a run for each seed, and the result."""

from __future__ import annotations

import math
import statistics
import traceback
from pathlib import Path
from typing import Any, Literal

import attrs

from functrain.errors import SearchError
from functrain.errors.nearest import nearest
from functrain.search.manifest import SeedResult, read_trial, write_trial
from functrain.search.objective import Objective
from functrain.search.pruning import PruningListener
from functrain.training.history import History, Run


@attrs.frozen
class Goal:
    """The value of a run to optimize.

    Attributes:
        metric: the name in the history of the run; as in ``EarlyStop``, ``"loss"`` stands for
            ``"eval/loss"``.
        maximize: whether higher is better.
        best: whether to use the best value of a run, or the last one.
    """

    metric: str
    maximize: bool
    best: bool

    def measure(self, history: History) -> float | None:
        """Return the value of a run; ``None`` if the metric was not measured."""
        present = [n for n in (f"eval/{self.metric}", self.metric) if n in history.names()]
        if not present:
            return None
        values: list[float] = history[present[0]]
        finite = [value for value in values if math.isfinite(value)]
        if not self.best or not finite:
            return values[-1]
        return max(finite) if self.maximize else min(finite)

    def result(
        self, history: History, reason: str, detail: str, steps: int, seconds: float
    ) -> SeedResult:
        """Return the result of a run that was not interrupted."""
        value = self.measure(history)
        if reason == "nonfinite":
            value = None
        elif value is None and reason not in ("listener", "pruned"):
            names = history.names()
            raise SearchError(
                f"metric: the runs do not measure {self.metric!r}{nearest(self.metric, names)}; "
                f"they measure {', '.join(names)}"
            )
        elif reason != "pruned" and (value is None or not math.isfinite(value)):
            what = "was not measured" if value is None else f"is {value}"
            value, detail = None, f"{self.metric} {what} ({detail})"
        return SeedResult(value, reason, detail, steps, seconds)


@attrs.frozen
class TrialResult:
    """The result of a trial.

    Attributes:
        seconds: training time over all seeds.
    """

    state: Literal["complete", "pruned", "failed", "interrupted"]
    detail: str
    values: tuple[float, ...] = ()
    seconds: float = 0.0
    error: bool = False

    @property
    def value(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """The sample standard deviation over several seeds (divided by n - 1)."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


def run_trial(
    objective: Objective,
    goal: Goal,
    trial: Any,
    params: dict[str, Any],
    seeds: tuple[int, ...],
    directory: Path,
) -> TrialResult:
    """Run the seeds of a trial that have no result yet.

    Only the first seed can be pruned, so that all compared values belong to the same seed.
    """
    done = read_trial(directory)
    for seed in seeds:
        if seed not in done:
            pruning = PruningListener(trial, goal.metric) if seed == seeds[0] else None
            listeners = [] if pruning is None else [pruning]
            try:
                run = objective(dict(params), seed, directory / f"seed-{seed}", listeners)
            except Exception as error:  # not hidden: error.txt has the traceback
                if isinstance(error.__cause__, SearchError):  # all trials would fail alike
                    raise error.__cause__ from None
                return _failed(error, directory, seed)
            if checked(run).reason == "interrupted":
                return TrialResult("interrupted", run.detail)
            done[seed] = _ended(run, goal, pruning)
            write_trial(directory, params, done)
        if done[seed].reason == "pruned" or done[seed].value is None:
            break
    return _outcome([(seed, done[seed]) for seed in seeds if seed in done])


def checked(run: Any) -> Run:
    """Return the result of an objective."""
    if isinstance(run, Run):
        return run
    raise SearchError(
        f"the objective must return the Run that functrain.fit returns, got {type(run).__name__}"
    )


def _ended(run: Run, goal: Goal, pruning: PruningListener | None) -> SeedResult:
    """Return the result of a run that was not interrupted."""
    reason, detail = run.reason, run.detail
    # If a limit ended the run at the step of its pruning, the run is complete.
    if pruning is not None and reason == "listener" and detail == pruning.detail:
        reason = "pruned"
    return goal.result(run.history, reason, detail, run.state.counters.step, run.seconds)


def _outcome(found: list[tuple[int, SeedResult]]) -> TrialResult:
    seconds = sum(ended.seconds for _, ended in found)
    seed, last = found[-1]
    if last.reason == "pruned":
        return TrialResult("pruned", last.detail, seconds=seconds)
    if last.value is None:
        return TrialResult("failed", f"seed {seed}: {last.reason}: {last.detail}", seconds=seconds)
    values = tuple(ended.value for _, ended in found if ended.value is not None)
    return TrialResult("complete", last.detail, values, seconds)


def _failed(error: Exception, directory: Path, seed: int) -> TrialResult:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "error.txt").write_text("".join(traceback.format_exception(error)))
    said = (str(error).strip() or "no message").splitlines()[0]
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    detail = f"seed {seed}: {type(error).__name__}: {said} ({where})"
    return TrialResult("failed", detail, error=True)
