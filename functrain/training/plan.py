"""The plan of a run: what it evaluates and saves, and when; the arguments of ``fit``, parsed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from functrain.core.program import Program
from functrain.core.protocol import AnyProgram, donating
from functrain.core.schedule import Mode
from functrain.core.state import is_averaged
from functrain.data import as_source
from functrain.data.source import LimitedSource, take_seed
from functrain.errors import ConfigurationError, LossError, RunChangedError
from functrain.errors.validators import integer, optional
from functrain.metrics.log_file import Row
from functrain.metrics.mode import modes_of_metrics
from functrain.schedules.schedule_end import ScheduleEnd, guarded
from functrain.training.durations import Duration, Minutes, Samples, duration
from functrain.training.evaluation import Evaluation, Weights, measure, numbers
from functrain.training.events import EvalBegin, EvalEnd
from functrain.training.limits import Limits, Position, Until, due
from functrain.training.one_model import in_fit


@attrs.frozen(eq=False)
class Evaluations:
    """Evaluation sets by name.

    Attributes:
        sets: each with its data as a :class:`functrain.data.Source`.
        every: the interval of those that have none of their own.
    """

    sets: Mapping[str, Evaluation]
    every: Duration

    @classmethod
    def of(cls, eval_data: Any, every: Duration) -> Evaluations:
        """Parse ``eval_data``: one set, to be named "eval", several by name, or ``None``.

        Raises:
            ConfigurationError: a name is that of other metrics in the log.
        """
        several = eval_data if isinstance(eval_data, Mapping) else {"eval": eval_data}
        if taken := {"epoch", *(f"{name}/ema" for name in several)} & several.keys():
            raise ConfigurationError(
                f"eval_data: the names {sorted(taken)} are those of means over an epoch, or of a "
                "set that is evaluated with averaged weights: give the sets other names"
            )
        sets = {name: _as_evaluation(given) for name, given in several.items() if given is not None}
        return cls(sets, every)

    def limited(self, batches: int | None) -> Evaluations:
        """Return the sets with at most so many batches each; ``None`` for all."""
        sets = {name: _limited(each, batches) for name, each in self.sets.items()}
        return attrs.evolve(self, sets=sets)

    def due(self, before: Position, after: Position, last: bool) -> list[str]:
        """Return the names of the sets to evaluate after a step: all sets after the last one."""
        return [
            name
            for name, each in self.sets.items()
            if last or due(each.every or self.every, before, after)
        ]

    def check_names(self, metrics: Iterable[str]) -> None:
        """Refuse names of a step's metrics under which the log has those of others.

        Raises:
            LossError: one begins as the names of means over an epoch or of an evaluation do.
        """
        taken = tuple(f"{name}/" for name in ("epoch", *self.sets))
        if clash := [name for name in metrics if name.startswith(taken)]:
            raise LossError(
                f"a step's metrics may not use the names {clash}: the log has means over an epoch "
                "and metrics of evaluations under such names. Give them other names, or the "
                "evaluation set: eval_data={'name': data}"
            )

    def parts(self, names: Iterable[str], averaged: bool) -> Iterator[tuple[str, Weights]]:
        """Yield each set with each kind of weights that it is evaluated with."""
        there: tuple[Weights, ...] = ("params", "ema") if averaged else ("params",)
        for name in names:
            asked = self.sets[name].weights
            yield from ((name, one) for one in there if asked is None or one in asked)

    def prefixes(self, averaged: bool) -> dict[str, str]:
        """Return the prefixes of the names of all metrics, each with its set; see :meth:`parts`."""
        return {_prefix(name, kind): name for name, kind in self.parts(self.sets, averaged)}

    def evaluated(
        self,
        program: AnyProgram,
        state: Any,
        names: Sequence[str],
        emit: Callable[[EvalBegin | EvalEnd], object],
        interrupted: Callable[[], bool],
    ) -> tuple[dict[str, Any], dict[str, Mode]]:
        """Evaluate several sets; name the metrics ``name/metric`` and ``name/ema/metric``.

        Returns the metrics and the modes that metric objects declare, both by name. A metric of a
        population is a list, with ``None`` for members that have stopped.
        """
        found: dict[str, Any] = {}
        directions: dict[str, Mode] = {}
        answers = in_fit(program)
        some, part, cut = answers.evaluated(state)
        for name, weights in self.parts(names, is_averaged(state)):
            emit(EvalBegin(state, name, weights))
            values = measure(some, part, self.sets[name], weights, interrupted, cut)
            means = answers.widened(state, numbers(some, values))
            emit(EvalEnd(state, name, weights, means, values))
            prefix = _prefix(name, weights)
            found |= {f"{prefix}/{key}": value for key, value in means.items()}
            directions |= {
                f"{prefix}/{key}": mode for key, mode in modes_of_metrics(values).items()
            }
        return found, directions

    def close(self) -> None:
        """Close the data of all sets."""
        for each in self.sets.values():
            each.data.close()


@attrs.frozen
class Due:
    """What is due after a step; a part that is done is due no longer.

    A checkpoint holds what is left, so a run that was interrupted in between does the rest.

    Attributes:
        epoch_end: whether the epoch ends.
        evaluate: the names of the sets to evaluate.
        save: whether to save.
        row: the row of the step, which means and evaluations add to; ``None`` until it was read
            from the device, and empty after a batch that made no step.
    """

    epoch_end: bool
    evaluate: list[str]
    save: bool
    row: Row | None = None

    @classmethod
    def read(cls, record: Mapping[str, Any] | None) -> Due | None:
        """Return what a checkpoint holds."""
        return None if record is None else cls(**record)

    def row_with(self, values: Mapping[str, Any]) -> Row:
        """Return the row with more values; it stays empty if the batch made no step."""
        return {**self.row, **values} if self.row else {}


_AT_LEAST_ONE = optional(integer(minimum=1))


@attrs.frozen
class BatchLimits:
    """How many batches a run reads at most; ``None`` for all.

    Attributes:
        limit_train_batches: of the training data in each epoch.
        limit_eval_batches: of each evaluation set.
    """

    limit_train_batches: int | None = attrs.field(default=None, validator=_AT_LEAST_ONE)
    limit_eval_batches: int | None = attrs.field(default=None, validator=_AT_LEAST_ONE)

    def train(self, data: Any) -> Any:
        """Return the training data with epochs that end at the limit."""
        limit = self.limit_train_batches
        return data if limit is None else LimitedSource(as_source(data), limit)

    def describe(self) -> dict[str, int]:
        """Return those that are set, as checkpoints record them."""
        return attrs.asdict(self, filter=lambda _, value: value is not None)

    def check(self, info: dict[str, Any], path: Path) -> None:
        """Refuse to resume a run under other limits.

        Its epochs would have another length from there on, and its best would be of other data.
        """
        before = info.get("batch_limits", {})
        if before != self.describe():
            raise RunChangedError(
                f"the run in {path.parent} was made with {_listed(before)}, and this call has "
                f"{_listed(self.describe())}. Choose another directory for a run of its own, or "
                "give the same limits to continue that one"
            )


@attrs.frozen(eq=False, kw_only=True)
class Plan:
    """The plan of a run, which never changes while it lasts.

    Attributes:
        donating: the same program, whose step overwrites the state that it is given.
        evaluations: the evaluation sets, and when each is due.
        save_every: when a checkpoint is due.
        sanity_batches: how many batches of each set are evaluated before the first step.
        batch_limits: how many batches are read at most; the evaluations keep to it.
        counts_samples: whether any of these is in samples, so that all batches need a size.
        timed: whether any of these is a time.
    """

    program: AnyProgram
    donating: AnyProgram
    limits: Limits
    evaluations: Evaluations
    save_every: Duration
    restore_best: bool
    sanity_batches: int = attrs.field(validator=integer(minimum=0))
    batch_limits: BatchLimits
    counts_samples: bool = attrs.field(init=False)
    timed: bool = attrs.field(init=False)

    @counts_samples.default
    def _in_samples(self) -> bool:
        return any(isinstance(each, Samples) for each in self._durations)

    @timed.default
    def _in_minutes(self) -> bool:
        return any(isinstance(each, Minutes) for each in self._durations)

    @property
    def _durations(self) -> list[Duration | None]:
        own = [each.every for each in self.evaluations.sets.values()]
        return [*self.limits.durations, self.save_every, self.evaluations.every, *own]

    def describe(self) -> dict[str, str]:
        """Return the plan as texts by name, for people and for a comparison of ranks."""
        return {
            "until": ", ".join(map(str, self.limits.durations)),
            "save_every": str(self.save_every),
            "eval_every": str(self.evaluations.every),
            "eval_data": ", ".join(
                f"{name}: {each.every}, {each.weights}, {each.batches}"
                for name, each in self.evaluations.sets.items()
            ),
            "restore_best": str(self.restore_best),
            **{name: str(limit) for name, limit in self.batch_limits.describe().items()},
        }

    @classmethod
    def of(
        cls,
        program: AnyProgram,
        until: Until,
        eval_data: Any,
        eval_every: Duration | str | None,
        save_every: Duration | str | None,
        restore_best: bool,
        sanity_batches: int,
        batch_limits: BatchLimits,
    ) -> Plan:
        """Parse arguments of ``fit``."""
        evaluations = Evaluations.of(eval_data, duration(eval_every or "1 epoch"))
        return cls(
            program=donating(program, False),
            # A step of several programs may fail when it has consumed the state of one of them.
            donating=donating(program, isinstance(program, Program)),
            limits=Limits.of(until),
            evaluations=evaluations.limited(batch_limits.limit_eval_batches),
            save_every=duration(save_every or "1 epoch"),
            restore_best=restore_best,
            sanity_batches=sanity_batches,
            batch_limits=batch_limits,
        )

    def total_steps(self, batches: int | None) -> int | None:
        """Return the updates that the limits allow, where known; see :meth:`Limits.steps`."""
        return self.limits.steps(batches, self.program.recipe.accumulate)

    def guarded(self, steps: int | None, schedule_end: ScheduleEnd) -> Plan:
        """Return the plan with programs that refuse an unforeseen learning rate of zero."""
        program = guarded(self.program, steps, schedule_end)
        donating = guarded(self.donating, steps, schedule_end)
        return attrs.evolve(self, program=program, donating=donating)

    def due(self, before: Position, after: Position, ends_epoch: bool, last: bool) -> Due | None:
        """Return what is due after a step; ``None`` for nothing."""
        evaluate = self.evaluations.due(before, after, last)
        save = due(self.save_every, before, after) or last
        return Due(ends_epoch, evaluate, save) if ends_epoch or evaluate or save else None


def _prefix(name: str, weights: Weights) -> str:
    return name if weights == "params" else f"{name}/{weights}"


def _limited(one: Evaluation, batches: int | None) -> Evaluation:
    few = [limit for limit in (one.batches, batches) if limit is not None]
    return attrs.evolve(one, batches=min(few, default=None))


def _as_evaluation(given: Any) -> Evaluation:
    one = given if isinstance(given, Evaluation) else Evaluation(given)
    source = as_source(one.data)
    take_seed(source, 0)  # the same order whatever the seed of the run
    return attrs.evolve(one, data=source)


def _listed(limits: dict[str, int]) -> str:
    listed = ", ".join(f"{name}={value}" for name, value in limits.items())
    return listed or "no limit of batches"
