"""The loop of a search: run trials until a limit, resuming an earlier search."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import attrs

from functrain.errors import ConfigurationError
from functrain.errors.output import print_line
from functrain.errors.paths import absolute
from functrain.errors.validators import plain
from functrain.search import arguments, factories
from functrain.search.arguments import Direction
from functrain.search.manifest import (
    check_code,
    forget_changing,
    read_members,
    trial_directory,
    write_members,
    write_or_check,
)
from functrain.search.objective import Objective
from functrain.search.space import read_space
from functrain.search.study import Drawn, TrialQueue, open_study
from functrain.search.together import Trainer, divided
from functrain.search.trials import Goal, TrialResult, run_trial
from functrain.training.agreement import started
from functrain.training.code import describe_code
from functrain.training.durations import Duration
from functrain.training.early_stopping import Halving
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
    population: int = 1,
    halving: Halving | Mapping[str, Any] | None = None,
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
        population: draw so many trials at once, and train those that differ only in numbers which a
            member of a population may have of its own by one step; ``objective`` must be able to,
            as :class:`ProgramObjective` is.
        halving: a :class:`functrain.training.early_stopping.Halving`, or its arguments: trials of a
            population that it stops are pruned. It ranks them by ``metric``.
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
    where, parameters = absolute(directory), read_space(space)
    arguments.check_objective(objective)
    direction, seeds = arguments.direction_of(metric, direction), tuple(map(plain, seeds))
    arguments.check(direction, value, trials, seeds, max_failures)
    options = {} if sampler is None else dict(sampler)
    factories.make_sampler(options, 0)  # before anything is written
    rule = arguments.as_halving(halving, metric, direction)
    arguments.check_population(objective, population, rule)
    judge = pruner if hasattr(pruner, "prune") else factories.make_pruner(pruner)
    limit = arguments.seconds(timeout)
    shared = getattr(objective, "describe", dict)
    write_or_check(where, {
        "metric": metric,
        "direction": direction,
        "value": value,
        "seeds": list(seeds),
        **{f"space.{name}": repr(parameter) for name, parameter in parameters.items()},
        **(settings or {}),
        "shared": shared(),
    })  # fmt: skip
    code = partial(describe_code, getattr(objective, "roots", {"objective": objective}))
    check_code(where, code())
    queue = TrialQueue(open_study(where, direction, judge), where, options, trials, parameters)
    goal = Goal(metric, direction == "maximize", value == "best")
    own: Any = objective  # which trains populations, if there are to be some
    trainer = Trainer(own, goal, seeds, where, rule, say)
    ended = _Loop(trainer, queue, max_failures, limit, population).run()
    forget_changing(where, shared(), code())
    return Search(queue.study, where, *ended)


@attrs.frozen
class _Loop:
    """The arguments of the loop over trials."""

    trainer: Trainer
    queue: TrialQueue
    max_failures: int
    seconds: float
    population: int

    def run(self) -> tuple[str, str]:
        """Run trials, and return the reason for stopping as a word and a sentence."""
        begin, failures = time.monotonic(), 0
        while time.monotonic() - begin < self.seconds:
            try:
                outcomes = self._trials()
            except KeyboardInterrupt:  # between two runs; a run handles SIGINT itself
                return "interrupted", "received SIGINT"
            if not outcomes and self.queue.exhausted:
                return "exhausted", "every point of the space was tried"
            if not outcomes:
                return "trials", f"{self.queue.trials} trials were started"
            if outcomes[-1].state == "interrupted":
                return "interrupted", outcomes[-1].detail
            failures += sum(outcome.error for outcome in outcomes)
            if failures >= self.max_failures:
                return "failures", f"{failures} trials failed with an exception"
        return "timeout", f"no trial starts after {self.seconds:g} s"

    def _trials(self) -> list[TrialResult]:
        """Run the next trials, one or as many as a population may have."""
        with self.queue.next(self.population) as drawn:
            for one in drawn:
                if one.resumed:
                    self.trainer.say(f"trial {one.trial.number}: was interrupted, resuming")
            if len(drawn) > 1:
                interrupted = self._train_together(drawn)
                if interrupted is not None:
                    return [interrupted]
            outcomes: list[TrialResult] = []
            for one in drawn:
                outcomes.append(self._finish(one))
                if outcomes[-1].state == "interrupted":
                    break
            return outcomes

    def _train_together(self, drawn: Sequence[Drawn]) -> TrialResult | None:
        search, trainer = self.queue.directory, self.trainer
        found = {one.trial.number: read_members(search, one.trial.number) for one in drawn}
        new = [one for one in drawn if found[one.trial.number] is None]
        for members in divided(trainer.objective, new):
            write_members(search, members)
            found |= dict.fromkeys(members.trials, members)
        trials = {one.trial.number: one.trial for one in drawn}
        for members in {one.trials[0]: one for one in found.values() if one is not None}.values():
            interrupted = trainer.train(members, trials)
            if interrupted is not None:
                return interrupted
        return None

    def _finish(self, drawn: Drawn) -> TrialResult:
        """Run the seeds of a trial that are left, and store its result."""
        trial, params, by = drawn.trial, drawn.params, self.trainer
        directory = trial_directory(by.directory, trial.number)
        outcome = run_trial(by.objective, by.goal, trial, params, by.seeds, directory)
        if outcome.state != "interrupted":
            self.queue.tell(trial, outcome)
        by.say(_line(trial.number, params, outcome, directory))
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
