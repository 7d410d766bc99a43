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
from functrain.search.arguments import Direction
from functrain.search.manifest import SeedResult, read_trial, trial_directory, write_trial
from functrain.search.objective import Objective
from functrain.search.pruning import PruningListener
from functrain.training.history import History, Run


@attrs.frozen
class Goal:
    """The value of a run to optimize.

    Attributes:
        metric: the name in the history of the run; as in ``EarlyStop``, ``"loss"`` stands for
            ``"eval/loss"``.
        direction: whether lower or higher is better.
        value: whether to use the last value of a run, or the best one.
    """

    metric: str
    direction: Direction
    value: Literal["last", "best"]

    def measure(self, history: History) -> float | None:
        """Return the value of a run; ``None`` if the metric was not measured."""
        present = [n for n in (f"eval/{self.metric}", self.metric) if n in history.names()]
        if not present:
            return None
        values: list[float] = history[present[0]]
        finite = [value for value in values if math.isfinite(value)]
        if self.value == "last" or not finite:
            return values[-1]
        return min(finite) if self.direction == "minimize" else max(finite)


@attrs.frozen
class TrialResult:
    """The result of a trial.

    Attributes:
        values: of the seeds.
        seconds: training time over all seeds.
        error: whether an exception ended the trial.
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


@attrs.frozen
class TrialRunner:
    """Runs the seeds of trials.

    Attributes:
        seeds: each trial runs with all of these.
        directory: of the search.
    """

    objective: Objective
    goal: Goal
    seeds: tuple[int, ...]
    directory: Path

    def run(self, trial: Any, params: dict[str, Any]) -> TrialResult:
        """Run the seeds of a trial that have no result yet.

        Only the first seed can be pruned, so that all compared values belong to the same seed.
        """
        directory = trial_directory(self.directory, trial.number)
        done = read_trial(directory)
        for seed in self.seeds:
            if seed not in done:
                result = self._run_seed(trial, params, seed, directory)
                if isinstance(result, TrialResult):
                    return result
                done[seed] = result
                write_trial(directory, params, done)
            if done[seed].reason == "pruned" or done[seed].value is None:
                break
        return _over_seeds({seed: done[seed] for seed in self.seeds if seed in done})

    def _run_seed(
        self, trial: Any, params: dict[str, Any], seed: int, directory: Path
    ) -> SeedResult | TrialResult:
        """Return the result of a seed, or the one of the trial if it failed or was interrupted."""
        pruning = PruningListener(trial, self.goal.metric) if seed == self.seeds[0] else None
        listeners = [] if pruning is None else [pruning]
        try:
            run = self.objective(dict(params), seed, directory / f"seed-{seed}", listeners)
        except Exception as error:  # not hidden: error.txt has the traceback
            if isinstance(error.__cause__, SearchError):  # all trials would fail alike
                raise error.__cause__ from None
            return _failed_by(error, directory, seed)
        if not isinstance(run, Run):
            raise SearchError(
                "the objective must return the Run that functrain.fit returns, got "
                f"{type(run).__name__}"
            )
        if run.reason == "interrupted":
            return TrialResult("interrupted", run.detail)
        return self._seed_result(run, pruning)

    def _seed_result(self, run: Run, pruning: PruningListener | None) -> SeedResult:
        """Return the result of a run that was not interrupted."""
        metric, reason, detail = self.goal.metric, run.reason, run.detail
        value, steps = self.goal.measure(run.history), run.state.counters.step
        # If a limit ended the run at the step of its pruning, the run is complete.
        if pruning is not None and reason == "listener" and detail == pruning.detail:
            return SeedResult(value, "pruned", detail, steps, run.seconds)
        if reason == "nonfinite":
            return SeedResult(None, reason, detail, steps, run.seconds)
        if value is None and reason != "listener":
            names = run.history.names()
            raise SearchError(
                f"metric: the runs do not measure {metric!r}{nearest(metric, names)}; they measure "
                f"{', '.join(names)}"
            )
        if value is None or not math.isfinite(value):
            what = "was not measured" if value is None else f"is {value}"
            value, detail = None, f"{metric} {what} ({detail})"
        return SeedResult(value, reason, detail, steps, run.seconds)


def _over_seeds(done: dict[int, SeedResult]) -> TrialResult:
    seconds = sum(result.seconds for result in done.values())
    seed, last = list(done.items())[-1]
    if last.reason == "pruned":
        return TrialResult("pruned", last.detail, seconds=seconds)
    if last.value is None:
        return TrialResult("failed", f"seed {seed}: {last.reason}: {last.detail}", seconds=seconds)
    values = tuple(result.value for result in done.values() if result.value is not None)
    return TrialResult("complete", last.detail, values, seconds)


def _failed_by(error: Exception, directory: Path, seed: int) -> TrialResult:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "error.txt").write_text("".join(traceback.format_exception(error)))
    said = (str(error).strip() or "no message").splitlines()[0]
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    detail = f"seed {seed}: {type(error).__name__}: {said} ({where})"
    return TrialResult("failed", detail, error=True)
