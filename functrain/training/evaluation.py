"""A program's metrics over data sets: which sets a run evaluates, when, and what they give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
from torch import Tensor

from functrain.core.batch import Batch, known_size
from functrain.core.batch_sizes import count, size
from functrain.core.loss import LossFunction
from functrain.core.program import Program
from functrain.core.schedule import Mode
from functrain.core.state import TrainState
from functrain.data import Source, as_source
from functrain.data.seeded_iteration import generator_states, set_generator_states
from functrain.errors import ConfigurationError, EmptyBatchWarning, EmptyDatasetError
from functrain.errors.warning import warn
from functrain.metrics import Mean, computed, merged
from functrain.metrics.mode import modes_of_metrics
from functrain.training import iteration
from functrain.training.durations import Duration, duration
from functrain.training.events import EvalBegin, EvalEnd
from functrain.training.limits import Position, due


class Interrupted(Exception):  # noqa: N818 (not an error: it carries a decision upwards)
    """Raised inside an evaluation when the run is asked to end."""


def _optional_duration(every: Duration | str | None) -> Duration | None:
    return None if every is None else duration(every)


def _names(weights: str | Iterable[str] | None) -> tuple[str, ...] | None:
    if weights is None:
        return None
    return (weights,) if isinstance(weights, str) else tuple(weights)


def _check_weights(_: Any, __: Any, weights: tuple[str, ...] | None) -> None:
    if weights is not None and (not weights or set(weights) - {"params", "ema"}):
        raise ConfigurationError(f'weights must name "params", "ema" or both, got {weights}')


def _check_batches(_: Any, __: Any, batches: int | None) -> None:
    if batches is not None and batches < 1:
        raise ConfigurationError(f"batches must be at least 1, got {batches}")


@attrs.frozen(eq=False)
class Evaluation:
    """An evaluation set with its own interval, function and part of the data.

    Attributes:
        data: anything ``fit`` takes; its first epoch is used.
        every: when it is evaluated; by default at ``fit``'s ``eval_every``. The last update always
            is.
        weights: of ``"params"`` and ``"ema"`` those to evaluate; by default all there are.
        batches: only so many of the first batches.
        function: used in place of the program's ``evaluate`` (or ``loss``), with the same
            signature: it may return other metrics.

    Example:
        >>> Evaluation([], every="500 steps", batches=10).every
        Steps(n=500)
    """

    data: Any
    every: Duration | None = attrs.field(default=None, kw_only=True, converter=_optional_duration)
    weights: tuple[str, ...] | None = attrs.field(
        default=None,
        kw_only=True,
        converter=_names,
        validator=_check_weights,
    )
    batches: int | None = attrs.field(default=None, kw_only=True, validator=_check_batches)
    function: LossFunction | None = attrs.field(default=None, kw_only=True)


def evaluate(
    program: Program,
    state: TrainState,
    data: object,
    *,
    weights: str = "params",
    batches: int | None = None,
    function: LossFunction | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Loss and metrics over a data set, each sample counted alike.

    Args:
        program: whose ``evaluate`` (or ``loss``) is used.
        state: what is evaluated; not changed, and neither is any random generator.
        data: anything ``fit`` takes; its first epoch is used.
        weights: ``"params"`` or ``"ema"``.
        batches: only so many of the first batches.
        function: used in place of the program's.
        interrupted: asked before each batch.

    Returns:
        Scalars averaged by ``Loss.weight`` (by default the batch size), and what the metrics that
        are values compute of all samples.

    Raises:
        BatchSizeError: there are several batches, and the weight of one is unknown: its size is
            not evident, and the loss returned none.
        Interrupted: ``interrupted`` said so.
        EmptyDatasetError: the data has no batches, or only such without samples and no end.
    """
    return numbers(
        measure(
            program,
            state,
            data,
            weights=weights,
            batches=batches,
            function=function,
            interrupted=interrupted,
        )
    )


def measure(
    program: Program,
    state: TrainState,
    data: object,
    *,
    weights: str = "params",
    batches: int | None = None,
    function: LossFunction | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """What :func:`evaluate` computes its numbers of: metrics merged over all batches.

    Args:
        program: see :func:`evaluate`, as for all that follow.
        state: not changed.
        data: anything ``fit`` takes.
        weights: ``"params"`` or ``"ema"``.
        batches: only so many of the first batches.
        function: used in place of the program's.
        interrupted: asked before each batch.

    Returns:
        Metrics by name; scalars as :class:`functrain.metrics.Mean`. Empty without samples.

    Raises:
        Interrupted: ``interrupted`` said so.
        EmptyDatasetError: the data has no batches, or only such without samples and no end.
    """
    if function is not None:
        recipe = attrs.evolve(program.recipe, evaluate=function)
        program = attrs.evolve(program, fixed=attrs.evolve(program.fixed, recipe=recipe))
    source = as_source(data)
    loader = getattr(source, "data", None)
    # A loader with its own generator draws its order from it: each evaluation the same one.
    held = generator_states(loader)
    try:
        return _merged(program, state, source, weights, batches, interrupted)
    finally:
        set_generator_states(loader, held)


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Metrics that are values as numbers.

    Args:
        values: from :func:`measure`.
    """
    devices = [value.total.device for value in values.values() if isinstance(value, Mean)]
    found = computed(values, devices[0]) if devices else {}
    return {name: value.item() for name, value in found.items()}


def _merged(
    program: Program,
    state: TrainState,
    source: Source,
    weights: str,
    batches: int | None,
    interrupted: Callable[[], bool],
) -> dict[str, Any]:
    so_far: dict[str, Any] = {}
    index: int | None = None
    empty = 0
    alone: list[Batch] = []  # a batch whose weight is only needed if there is another
    for index, batch in enumerate(source.epoch(0, 0, 0, None)):
        if interrupted():
            raise Interrupted
        if batches is not None and index >= batches:
            break
        if not _has_samples(batch, index):
            empty += 1
            if empty >= iteration.MOST_EMPTY:
                raise EmptyDatasetError(
                    f"{empty} batches of the evaluation data in a row have no samples: look at "
                    "what it gives, or limit it, functrain.Evaluation(data, batches=...)"
                )
            continue
        empty = 0
        outcome = program.outcome(state, batch, weights)
        if not so_far and outcome.weight is None and size(batch) is None:
            alone, weight = [batch], outcome.value.new_ones(())
        else:
            for first in alone:
                known_size(first)
            weight = outcome.weight_of(batch)
        for name, value in {"loss": outcome.value, **outcome.metrics}.items():
            metric = Mean.of(value, weight) if isinstance(value, Tensor) else value
            so_far[name] = merged([so_far[name], metric]) if name in so_far else metric
    if index is None:
        raise EmptyDatasetError(
            "the evaluation data gave no batch: look at what its dataset, sampler or filter gives"
        )
    return so_far


def _has_samples(batch: Batch, index: int) -> bool:
    if count(batch):
        return True
    warn(
        f"batch {index} of the evaluation data has no samples; it was passed over",
        EmptyBatchWarning,
    )
    return False


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
        """Read what ``fit`` takes: one set, to be called "eval", several by name, or ``None``."""
        several = eval_data if isinstance(eval_data, Mapping) else {"eval": eval_data}
        sets = {name: _as_evaluation(given) for name, given in several.items() if given is not None}
        return cls(sets, every)

    def due(self, before: Position, after: Position, last: bool) -> list[str]:
        """The sets to be evaluated after a step.

        Args:
            before: where the run stood before it.
            after: where it stands.
            last: whether the run ends here: then all of them are.
        """
        return [
            name
            for name, each in self.sets.items()
            if last or due(each.every or self.every, before, after)
        ]

    def parts(self, names: Iterable[str], averaged: bool) -> Iterator[tuple[str, str]]:
        """Each set with each kind of weights it is evaluated with.

        Args:
            names: the sets.
            averaged: whether there are averaged weights.
        """
        there = ("params", "ema") if averaged else ("params",)
        for name in names:
            asked = self.sets[name].weights
            yield from ((name, one) for one in there if asked is None or one in asked)

    def prefixes(self, averaged: bool) -> dict[str, str]:
        """How the names of all metrics begin, each with its set; see :meth:`parts`."""
        return {_prefix(name, kind): name for name, kind in self.parts(self.sets, averaged)}

    def evaluated(
        self,
        program: Program,
        state: TrainState,
        names: Sequence[str],
        send: Callable[[EvalBegin | EvalEnd], object],
        interrupted: Callable[[], bool],
    ) -> tuple[dict[str, float], dict[str, Mode]]:
        """The metrics of several sets, as ``name/metric`` and ``name/ema/metric``.

        Args:
            program: what to evaluate with.
            state: what is evaluated.
            names: the sets.
            send: told of the beginning and the end of each part.
            interrupted: asked before each batch.

        Returns:
            (metrics, what metric objects say of which value is better), both by name.

        Raises:
            Interrupted: ``interrupted`` said so.
        """
        found: dict[str, float] = {}
        directions: dict[str, Mode] = {}
        for name, weights in self.parts(names, state.ema is not None):
            send(EvalBegin(state, name, weights))
            values = self._measured(program, state, name, weights, interrupted)
            means = numbers(values)
            send(EvalEnd(state, name, weights, means, values))
            prefix = _prefix(name, weights)
            found |= {f"{prefix}/{key}": value for key, value in means.items()}
            directions |= {f"{prefix}/{key}": one for key, one in modes_of_metrics(values).items()}
        return found, directions

    def _measured(
        self,
        program: Program,
        state: TrainState,
        name: str,
        weights: str,
        interrupted: Callable[[], bool],
    ) -> dict[str, Any]:
        one = self.sets[name]
        return measure(
            program,
            state,
            one.data,
            weights=weights,
            batches=one.batches,
            function=one.function,
            interrupted=interrupted,
        )

    def close(self) -> None:
        """Let go of the data of all sets."""
        for each in self.sets.values():
            each.data.close()


def _prefix(name: str, weights: str) -> str:
    return name if weights == "params" else f"{name}/{weights}"


def _as_evaluation(given: Any) -> Evaluation:
    one = given if isinstance(given, Evaluation) else Evaluation(given)
    return attrs.evolve(one, data=as_source(one.data))
