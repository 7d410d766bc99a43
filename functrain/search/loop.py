"""The loop of a search: run trials until a limit, resuming an earlier search."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import attrs

from functrain.errors import ConfigurationError, SearchError
from functrain.errors.nearest import nearest
from functrain.metrics.mode import mode_of_name, name_hint
from functrain.search import factories
from functrain.search.manifest import trial_directory, write_or_check
from functrain.search.space import Space, read_space, suggest
from functrain.search.study import TrialQueue, open_study
from functrain.search.trials import Goal, Objective, TrialResult, run_trial
from functrain.training.agreement import started
from functrain.training.durations import Duration, Minutes, duration
from functrain.view import plain_text

Direction: TypeAlias = Literal["minimize", "maximize"]
_DIRECTIONS, _VALUES = ("minimize", "maximize"), ("last", "best")


@attrs.frozen(eq=False)
class Search:
    """The result of ``search``.

    Attributes:
        study: the ``optuna.Study``, with all trials.
        directory: the directory of the search.
        reason: ``trials``, ``exhausted``, ``timeout``, ``failures`` or ``interrupted``.
        detail: the reason in words.
    """

    study: Any
    directory: Path
    reason: str
    detail: str


def search(
    objective: Objective,
    space: Mapping[str, Any],
    *,
    metric: str,
    directory: str | Path,
    direction: Direction | None = None,
    value: Literal["last", "best"] = "last",
    trials: int = 20,
    timeout: Duration | str | None = None,
    seeds: Sequence[int] = (0,),
    sampler: Mapping[str, Any] | None = None,
    pruner: Any = None,
    max_failures: int = 5,
    settings: Mapping[str, Any] | None = None,
    say: Callable[[str], object] = print,
) -> Search:
    """Search for the parameters with the best value of a metric.

    A second call with the same arguments resumes the search.

    Args:
        objective: ``objective(params, seed, directory, listeners)`` calls ``ft.fit`` with these
            ``seed``, ``directory`` and ``listeners`` and returns its run.
        space: see :func:`read_space`.
        metric: of the run's history, ``"eval/accuracy"`` say.
        directory: the directory of the search, with run directories like ``trial-0003/seed-1``.
        direction: ``minimize`` or ``maximize``. The default follows from a well-known name
            (accuracy, loss); any other metric needs it.
        value: use the ``last`` or the ``best`` value of the metric in a run.
        trials: total number of trials, including those of earlier calls.
        timeout: start no trial after this time in this call, for example ``"30 minutes"``.
        seeds: run each trial with all of these; the mean of the metric counts.
        sampler: ``name`` of an Optuna sampler and its arguments; ``seed`` is 0 by default.
        pruner: an Optuna pruner, or ``name`` and arguments of one; by default none.
        max_failures: stop after this many trials that failed with an exception in this call.
        settings: further plain data that must not change when the search is resumed.
        say: a function that is called with a line for each trial.

    Returns:
        The study, and why the search ended.

    Raises:
        ConfigurationError: torchrun or srun started several processes.
        SearchError: an argument is invalid, or the runs do not measure the metric.
        RunChangedError: the directory holds a search for something else.
        MissingExtraError: Optuna is not installed.
    """
    if started() > 1:
        raise ConfigurationError(
            f"search: {started()} processes were started to train together, and each would draw "
            "trials of its own. Start one process, or several on their own without torchrun, srun "
            "and their variables (WORLD_SIZE, SLURM_NTASKS): these share the trials of a directory"
        )
    where, parameters = Path(directory).absolute(), read_space(space)
    direction = direction_of(metric, direction)
    _check(direction, value, trials, seeds, max_failures)
    options = {} if sampler is None else dict(sampler)
    factories.make_sampler(options, 0)  # before anything is written
    judge = pruner if hasattr(pruner, "prune") else factories.make_pruner(pruner)
    limit = _seconds(timeout)
    write_or_check(where, {
        "metric": metric,
        "direction": direction,
        "value": value,
        "seeds": list(seeds),
        **{f"space.{name}": repr(parameter) for name, parameter in parameters.items()},
        **(settings or {}),
    })  # fmt: skip
    queue = TrialQueue(open_study(where, direction, judge), where, options, trials)
    goal = Goal(metric, direction == "maximize", value == "best")
    loop = _Loop(objective, goal, parameters, tuple(seeds), queue, max_failures, limit, say)
    return Search(queue.study, where, *loop.run())


def direction_of(metric: str, direction: Direction | None) -> Direction:
    """Return the direction of a search.

    Args:
        metric: the name of the metric, which implies the direction if it is well known.
        direction: the choice of the user, which takes precedence.

    Raises:
        SearchError: the direction is unknown.

    Example:
        >>> direction_of("eval/accuracy", None), direction_of("eval/score", "minimize")
        ('maximize', 'minimize')
    """
    if direction is not None:
        return direction
    mode = mode_of_name(metric)
    if mode is None:
        raise SearchError(
            f"direction: {metric!r} is no well-known name{name_hint(metric)}, so nothing says "
            "whether less or more of it is better. Give minimize or maximize"
        )
    return "minimize" if mode == "min" else "maximize"


@attrs.frozen
class _Loop:
    """The arguments of the loop over trials."""

    objective: Objective
    goal: Goal
    space: Space
    seeds: tuple[int, ...]
    queue: TrialQueue
    max_failures: int
    seconds: float
    say: Callable[[str], object]

    def run(self) -> tuple[str, str]:
        """Run trials, and return the reason for stopping as a word and a sentence."""
        begin, failures = time.monotonic(), 0
        while time.monotonic() - begin < self.seconds:
            try:
                outcome = self._trial()
            except KeyboardInterrupt:  # between two runs; a run handles SIGINT itself
                return "interrupted", "received SIGINT"
            if outcome is None and self.queue.exhausted:
                return "exhausted", "every point of the space was tried"
            if outcome is None:
                return "trials", f"{self.queue.trials} trials were started"
            if outcome.state == "interrupted":
                return "interrupted", outcome.detail
            failures += outcome.error
            if failures >= self.max_failures:
                return "failures", f"{failures} trials failed with an exception"
        return "timeout", f"no trial starts after {self.seconds:g} s"

    def _trial(self) -> TrialResult | None:
        with self.queue.next() as trial:
            if trial is None:
                return None
            if trial.params:
                self.say(f"trial {trial.number}: was interrupted, resuming")
            params = suggest(self.space, trial)
            directory = trial_directory(self.queue.directory, trial.number)
            outcome = run_trial(self.objective, self.goal, trial, params, self.seeds, directory)
            if outcome.state != "interrupted":
                self.queue.tell(trial, outcome)
            self.say(_line(trial.number, params, outcome, directory))
            return outcome


def _line(number: int, params: dict[str, Any], outcome: TrialResult, directory: Path) -> str:
    shown = ", ".join(f"{n}={plain_text.number(value)}" for n, value in params.items())
    if outcome.state == "complete":
        spread = "" if outcome.std is None else f" ± {outcome.std:.2g}"
        what = f"{outcome.value:.5g}{spread}"
    elif outcome.state == "pruned":
        what = outcome.detail
    else:
        what = f"{outcome.state} ({outcome.detail}); see {directory}"
    return f"trial {number}: {what}  [{shown}]"


def _check(direction: str, value: str, trials: int, seeds: Sequence[int], failures: int) -> None:
    for name, given, known in (("direction", direction, _DIRECTIONS), ("value", value, _VALUES)):
        if given not in known:
            raise SearchError(
                f"{name}: expected {' or '.join(known)}, got {given!r}{nearest(given, known)}"
            )
    for name, number in (("trials", trials), ("max_failures", failures)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise SearchError(f"{name}: expected a whole number of at least 1, got {number!r}")
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise SearchError(f"seeds: expected different whole numbers, got {list(seeds)}")


def _seconds(timeout: Duration | str | None) -> float:
    if timeout is None:
        return math.inf
    limit = duration(timeout)
    if not isinstance(limit, Minutes):
        raise SearchError(f"timeout: expected a time such as '30 minutes', got {timeout!r}")
    return float(limit.n) * 60
