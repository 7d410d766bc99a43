"""Trials of equal structure as one population: found, trained by one run, and their results."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from functrain.checkpoint import save
from functrain.checkpoint.run_directory import step_name
from functrain.checkpoint.storage.files import replace_file
from functrain.core.module_tensors import shown_layers
from functrain.core.program import Program
from functrain.errors import ConfigurationError, SearchError
from functrain.metrics.log_file import FILE_NAME, encode
from functrain.populations import states
from functrain.populations.construct import population
from functrain.populations.hyperparameters import plain
from functrain.search.manifest import (
    Members,
    SeedResult,
    read_trial,
    trial_directory,
    write_members,
    write_trial,
)
from functrain.search.member_pruning import MemberPruning
from functrain.search.objective import PopulationObjective
from functrain.search.study import Drawn
from functrain.search.trials import Goal, TrialResult, checked
from functrain.training.early_stopping import Halving
from functrain.training.history import Run
from functrain.transforms.hyperparameters import hyperparameters, replaced


def divided(objective: PopulationObjective, drawn: Sequence[Drawn]) -> Iterator[Members]:
    """Yield the populations of new trials; those that fit no other trial are in none."""
    by_key: dict[Any, list[Drawn]] = {}
    for one in drawn:
        by_key.setdefault(objective.key(one.params), []).append(one)
    for alike in by_key.values():
        found = _programs(objective, alike) if len(alike) > 1 else []
        for indices, values in groups([program for _, program in found]):
            if len(indices) > 1:
                own = [found[index][0] for index in indices]
                numbers, params = [one.trial.number for one in own], [one.params for one in own]
                yield Members(numbers, params, values)


def _programs(objective: PopulationObjective, alike: list[Drawn]) -> list[tuple[Drawn, Program]]:
    found = []
    for one in alike:
        try:
            found.append((one, objective.program(dict(one.params))))
        except Exception:  # not hidden: this trial then fails alone, and says why
            continue
    return found


@attrs.frozen(eq=False)
class Trainer:
    """Trains the population of some trials, seed by seed.

    Attributes:
        seeds: each trial runs with all of these.
    """

    objective: PopulationObjective
    goal: Goal
    seeds: tuple[int, ...]
    directory: Path
    halving: Halving | None
    say: Callable[[str], object]

    def train(self, members: Members, trials: dict[int, Any]) -> TrialResult | None:
        """Write the results of the seeds that the trials make as a population.

        Seeds that are left, since fewer than two trials go on or the population failed, are those
        of trials that train alone.

        ``trials`` has the ``optuna.Trial`` of each number without a result in the study. If the run
        was interrupted, return the result of all trials.
        """
        for seed in self.seeds:
            done = [read_trial(trial_directory(self.directory, n)) for n in members.trials]
            going = [at for at, found in enumerate(done) if self._goes_on(found, seed)]
            if len(going) < 2 or members.alone is not None:
                return None
            if all(seed in done[at] for at in going):
                continue
            try:
                run, pruning = self._run(members, going, seed, trials)
            except Exception as error:  # not hidden: said, in error.txt, and raised by a trial
                if isinstance(error.__cause__, SearchError):  # all trials would fail alike
                    raise error.__cause__ from None
                self._leave(members, error)
                return None
            if run.reason == "interrupted":
                return TrialResult("interrupted", run.detail)
            for place, at in enumerate(going):
                self._write_run(run, members.trials[at], seed, place)
                values = {path: each[at] for path, each in members.values.items()}
                result = self._result(run, pruning, place, len(going), values)
                directory = trial_directory(self.directory, members.trials[at])
                write_trial(directory, members.params[at], {**read_trial(directory), seed: result})
        return None

    def _goes_on(self, found: dict[int, SeedResult], seed: int) -> bool:
        before = [found.get(one) for one in self.seeds[: self.seeds.index(seed)]]
        return all(
            one is not None and one.reason != "pruned" and one.value is not None for one in before
        )

    def _run(
        self, members: Members, going: list[int], seed: int, trials: dict[int, Any]
    ) -> tuple[Run, MemberPruning]:
        first = seed == self.seeds[0]
        own = [trials.get(members.trials[at]) if first else None for at in going]
        halving = self.halving if first else None
        params = members.params[going[0]]
        recipe = self.objective.program(dict(params)).recipe
        pruning = MemberPruning(own, self.goal.metric, halving, recipe.nonfinite == "raise")
        values = {path: [each[at] for at in going] for path, each in members.values.items()}
        population = {"hyperparameters": values, "seeds": [seed] * len(going)}
        directory = members.directory(self.directory) / f"seed-{seed}"
        run = self.objective(dict(params), seed, directory, [pruning], population)
        return checked(run), pruning

    def _leave(self, members: Members, error: Exception) -> None:
        directory = members.directory(self.directory)
        (directory / "error.txt").write_text("".join(traceback.format_exception(error)))
        said = (str(error).strip() or "no message").splitlines()[0]
        why = f"{type(error).__name__}: {said}"
        write_members(self.directory, attrs.evolve(members, alone=why))
        self.say(f"{directory.name}: its trials train one by one; {why}; see {directory}")

    def _result(
        self, run: Run, pruning: MemberPruning, place: int, members: int, values: dict[str, Any]
    ) -> SeedResult:
        reason, detail = run.reason, run.detail
        steps = states.member(pruning.last, place).counters.step
        if (stopped := pruning.stopped.get(place)) is not None:
            # If a limit ended the run at the step of its pruning, the trial is complete.
            is_last = stopped.step == pruning.last.counters.step and run.reason.startswith("max_")
            if stopped.reason != "pruned" or not is_last:
                reason, detail = stopped.reason, stopped.detail
        # A rule such as PopulationBasedTraining may have changed them.
        held = {path: each[place] for path, each in states.held_by(pruning.last).items()}
        changed = {path: now for path, now in held.items() if now != plain(values[path])}
        if changed:
            detail += "; ended with " + ", ".join(f"{p}={now:.4g}" for p, now in changed.items())
        history = run.history.member(place)
        return self.goal.result(history, reason, detail, steps, run.seconds / members)

    def _write_run(self, run: Run, trial: int, seed: int, place: int) -> None:
        """Write the member of a trial as a run directory, with its state and its log."""
        if run.directory is None:
            return
        directory = trial_directory(self.directory, trial) / f"seed-{seed}"
        one = states.member(run.state, place)
        rows = run.history.member(place).rows
        info = {"member": place, "population": None, "directory": str(run.directory)}
        step = one.counters.step
        save(directory / step_name(step), one, info=info, step=step, overwrite=True)
        replace_file(directory / FILE_NAME, b"".join(map(encode, rows)))


_EQUAL = (
    *("optimizer", "clip_norm", "clip_value", "accumulate", "precision", "ema"),
    *("nonfinite", "sharpness", "parts"),
)


def groups(programs: Sequence[Program]) -> list[tuple[list[int], dict[str, list[Any]]]]:
    """Divide programs into as few populations as their structure allows, in order.

    Return for each the indices of its eager programs, and by path the hyperparameters by which they
    differ. Programs belong together if they differ in numbers that a member may have of its own.
    Their losses are not compared.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> def made(width, **options):
        ...     return ft.program(torch.nn.Linear(width, 1), loss, ft.optim.SGD(**options))
        >>> programs = [made(2, lr=0.1), made(3, lr=0.1), made(2, lr=0.2, weight_decay=0.1)]
        >>> groups(programs)
        [([0, 2], {'lr': [0.1, 0.2], 'weight_decay': [0.0, 0.1]}), ([1], {})]
    """
    found, rest = [], list(range(len(programs)))
    while rest:
        first = programs[rest[0]]
        own = [n for n in rest if n == rest[0] or _are_alike(first, programs[n])]
        found.append((own, _varied([programs[n] for n in own])))
        rest = [n for n in rest if n not in own]
    return found


def _are_alike(first: Program, other: Program) -> bool:
    if _structure(first) != _structure(other):
        return False
    values = _varied([first, other])
    try:
        recipe = replaced(other.recipe, {path: each[0] for path, each in values.items()})
        population(first, values, seeds=[0, 0])
    except ConfigurationError:  # the values decide what a step computes
        return False
    return all(getattr(recipe, name) == getattr(first.recipe, name) for name in _EQUAL)


def _varied(programs: Sequence[Program]) -> dict[str, list[Any]]:
    """Return the numbers in which programs differ, by path."""
    each = [hyperparameters(program.recipe) for program in programs]
    columns = {path: [one[path].value for one in each] for path in each[0]}
    return {
        path: values
        for path, values in columns.items()
        if any(value != values[0] for value in values) and not any(map(callable, values))
    }


def _structure(program: Program) -> Any:
    model = program.fixed.model
    shapes = {path: (value.shape, value.dtype) for path, value in model.params.items()}
    paths = set(hyperparameters(program.recipe))
    return shapes, program.fixed.trainable, shown_layers(model.module), paths
