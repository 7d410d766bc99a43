"""The loop of a search: run trials until a limit, resuming an earlier search."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import attrs

from functrain.errors.output import print_line
from functrain.errors.paths import absolute
from functrain.errors.validators import plain
from functrain.search import arguments, manifest
from functrain.search.arguments import Direction
from functrain.search.factories import make_pruner, make_sampler
from functrain.search.objective import Objective
from functrain.search.space import read_space
from functrain.search.study import TrialQueue, open_study
from functrain.search.trials import Goal, TrialResult, TrialRunner
from functrain.training.code import describe_code
from functrain.training.durations import Duration
from functrain.view import plain_text


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
    say: Callable[[str], object] = print_line,
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
    arguments.require_one_process()
    where, parameters = absolute(directory), read_space(space)
    arguments.check_objective(objective)
    direction, seeds = arguments.find_direction(metric, direction), tuple(map(plain, seeds))
    arguments.check_word("direction", direction, ("minimize", "maximize"))
    arguments.check_word("value", value, ("last", "best"))
    arguments.check_counts(trials=trials, max_failures=max_failures)
    arguments.check_seeds(seeds)
    make_sampler(sampler or {}, 0)  # finds mistakes before anything is written
    judge = pruner if hasattr(pruner, "prune") else make_pruner(pruner)
    limit = arguments.seconds(timeout)
    shared = getattr(objective, "describe", dict)
    code = partial(describe_code, getattr(objective, "roots", {"objective": objective}))
    manifest.write_or_check(where, {
        "metric": metric,
        "direction": direction,
        "value": value,
        "seeds": list(seeds),
        **{f"space.{name}": repr(parameter) for name, parameter in parameters.items()},
        **(settings or {}),
        "shared": shared(),
    })  # fmt: skip
    manifest.check_code(where, code())
    study = open_study(where, direction, judge)
    queue = TrialQueue(study, where, sampler or {}, trials, parameters)
    runner = TrialRunner(objective, Goal(metric, direction, value), seeds, where)
    reason, detail = _run_trials(queue, runner, max_failures, limit, say)
    manifest.forget_changing(where, shared(), code())
    return Search(study, where, reason, detail)


def _run_trials(
    queue: TrialQueue,
    runner: TrialRunner,
    max_failures: int,
    seconds: float,
    say: Callable[[str], object],
) -> tuple[str, str]:
    """Run trials, and return the reason for stopping as a word and a sentence."""
    begin, failures = time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        try:
            result = _run_next(queue, runner, say)
        except KeyboardInterrupt:  # between two runs; a run handles SIGINT itself
            return "interrupted", "received SIGINT"
        if result is None and queue.exhausted:
            return "exhausted", "every point of the space was tried"
        if result is None:
            return "trials", f"{queue.trials} trials were started"
        if result.state == "interrupted":
            return "interrupted", result.detail
        failures += result.error
        if failures >= max_failures:
            return "failures", f"{failures} trials failed with an exception"
    return "timeout", f"no trial starts after {seconds:g} s"


def _run_next(
    queue: TrialQueue, runner: TrialRunner, say: Callable[[str], object]
) -> TrialResult | None:
    """Run the next trial and store its result; ``None`` if no trial is left."""
    with queue.next() as drawn:
        if drawn is None:
            return None
        number = drawn.trial.number
        if drawn.resumed:
            say(f"trial {number}: was interrupted, resuming")
        result = runner.run(drawn.trial, drawn.params)
        if result.state != "interrupted":
            queue.tell(drawn.trial, result)
        say(_line(number, drawn.params, result, manifest.trial_directory(queue.directory, number)))
        return result


def _line(number: int, params: dict[str, Any], result: TrialResult, directory: Path) -> str:
    shown = ", ".join(f"{n}={plain_text.number(value)}" for n, value in params.items())
    if result.state == "complete":
        spread = "" if result.std is None else f" ± {result.std:.2g}"
        what = f"{result.value:.5g}{spread}"
    elif result.state == "pruned":
        what = result.detail
    else:
        what = f"{result.state} ({result.detail}); see {directory}"
    return f"trial {number}: {what}  [{shown}]"
