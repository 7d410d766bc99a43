"""The metrics of a program over a data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias, get_args

import attrs
import torch

from functrain.core.batch import Batch, count, known_size, size
from functrain.core.loss import LossFunction
from functrain.core.protocol import AnyProgram, AnyState
from functrain.data import Source, as_source
from functrain.data.own_generators import keep_generators
from functrain.data.reading_errors import naming_dead_workers
from functrain.errors import EmptyBatchWarning, EmptyDatasetError, LossError
from functrain.errors.base import warn
from functrain.errors.calls import explained
from functrain.errors.validators import Validator, integer, optional
from functrain.metrics import Mean, merged
from functrain.training import epoch_progress
from functrain.training.durations import Duration, duration
from functrain.training.one_model import in_fit, whole

# The weights of a state: those that are trained, or their average.
Weights: TypeAlias = Literal["params", "ema"]


class Interrupted(Exception):  # noqa: N818 (not an error: it carries a decision upwards)
    """Raised inside an evaluation when the run is asked to end."""


def _names(weights: Weights | Iterable[Weights] | None) -> tuple[Weights, ...] | None:
    if weights is None:
        return None
    return (weights,) if isinstance(weights, str) else tuple(weights)


def _are_kinds(weights: tuple[str, ...]) -> bool:
    return bool(weights) and set(weights) <= set(get_args(Weights))


@explained
@attrs.frozen(eq=False)
class Evaluation:
    """An evaluation set with its own interval, function and number of batches.

    Attributes:
        data: anything ``fit`` takes; its first epoch is used.
        every: the interval, by default ``eval_every`` of ``fit``. The last update is always
            evaluated.
        weights: ``"params"``, ``"ema"`` or both; by default all that the state has.
        batches: the number of batches to use, by default all.
        function: used instead of the program's ``evaluate`` (or ``loss``), with the same
            signature: it may return other metrics.

    Example:
        >>> Evaluation([], every="500 steps", batches=10).every
        Steps(n=500)
    """

    data: Any
    every: Duration | None = attrs.field(
        default=None, kw_only=True, converter=attrs.converters.optional(duration)
    )
    weights: tuple[Weights, ...] | None = attrs.field(
        default=None,
        kw_only=True,
        converter=_names,
        validator=optional(Validator(_are_kinds, "'params', 'ema', both")),
    )
    batches: int | None = attrs.field(
        default=None, kw_only=True, validator=optional(integer(minimum=1))
    )
    function: LossFunction | None = attrs.field(default=None, kw_only=True)


@explained
def evaluate(
    program: AnyProgram,
    state: AnyState,
    data: object,
    *,
    weights: Weights = "params",
    batches: int | None = None,
    function: LossFunction | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Return loss and metrics over a data set; all samples count equally.

    Args:
        program: its ``evaluate`` (or ``loss``) is used. Each metric of a population is a list with
            the number of each member.
        state: the state to evaluate; neither it nor any random generator changes.
        data: anything ``fit`` takes; its first epoch is used.
        weights: ``"params"`` or ``"ema"``.
        batches: the number of batches to use, by default all.
        function: used instead of the program's.
        interrupted: called before each batch; ends the evaluation when true.

    Returns:
        Scalars averaged by ``Loss.weight`` (by default the batch size), and what the metrics that
        are values compute of all samples.

    Raises:
        BatchSizeError: there are several batches, and the weight of one is unknown: its size is
            not evident, and the loss returned none.
        LossError: a metric is not reported for every batch, or a weight is below 0.
        Interrupted: ``interrupted`` returned true.
        EmptyDatasetError: the data has no batches, or no end and only empty batches.
    """
    one = Evaluation(data, batches=batches, function=function)
    return numbers(program, measure(program, state, one, weights, interrupted))


def measure(
    program: AnyProgram,
    state: AnyState,
    one: Evaluation,
    weights: Weights,
    interrupted: Callable[[], bool],
    cut: Callable[[Batch], Batch] = whole,
) -> dict[str, Any]:
    """Return the metrics of which :func:`evaluate` computes numbers, merged over all batches.

    Each batch is ``cut`` to what the program takes of it.
    """
    if one.function is not None:
        program = program.evaluated_by(one.function)
    source = as_source(one.data)
    # A loader with its own generator draws its order from it: each evaluation the same one.
    with naming_dead_workers(), keep_generators(getattr(source, "data", None)):
        return _merged(program, state, source, weights, one.batches, interrupted, cut)


def numbers(program: AnyProgram, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers that metrics compute, for a population lists of them."""
    found = in_fit(program).numbers(values)
    for name, mean in values.items():
        if not isinstance(mean, Mean):
            continue
        each = found[name] if isinstance(found[name], list) else [found[name]]
        if any(map(math.isnan, each)) and bool(mean.weight.isnan().any()):
            raise LossError(
                f"{name!r}: the weight of a batch, or of a value of it, is below 0 or NaN, so they "
                "have no mean. Expected weights >= 0"
            )
    return found


def _merged(
    program: AnyProgram,
    state: AnyState,
    source: Source,
    weights: Weights,
    batches: int | None,
    interrupted: Callable[[], bool],
    cut: Callable[[Batch], Batch],
) -> dict[str, Any]:
    so_far: dict[str, Any] = {}
    answers = in_fit(program)
    index: int | None = None
    empty = 0
    alone: list[Batch] = []  # a batch whose weight is only needed if there is another
    for index, batch in enumerate(source.epoch(0, 0, 0, None)):
        if interrupted():
            raise Interrupted
        if batches is not None and index >= batches:
            break
        batch = cut(batch)
        one = answers.batch_of_one(batch)
        if not _has_samples(one, index):
            empty += 1
            if empty >= epoch_progress.MOST_EMPTY:
                raise EmptyDatasetError(
                    f"{empty} batches of the evaluation data in a row have no samples: check "
                    "its batches, or limit it, functrain.Evaluation(data, batches=...)"
                )
            continue
        empty = 0
        loss_output = program.loss_output(state, batch, weights)
        if not so_far and loss_output.weight is None and size(one) is None:
            loss = loss_output.value
            alone, weight = [one], torch.ones(()) if loss is None else loss.new_ones(())
        else:
            for first in alone:
                known_size(first)
            weight = answers.weight(loss_output, one)
        _check_names(so_far, loss_output.named(), index)
        for name, value in loss_output.named().items():
            metric = answers.metric(value, weight)
            so_far[name] = merged([so_far[name], metric]) if name in so_far else metric
    if index is None:
        raise EmptyDatasetError(
            "the evaluation data gave no batch: check its dataset, sampler or filter"
        )
    return so_far


def _check_names(so_far: Mapping[str, Any], found: Mapping[str, Any], index: int) -> None:
    """Refuse a metric that a batch lacks: its mean would be over fewer samples than others."""
    if not so_far or so_far.keys() == found.keys():
        return
    name = next(iter(so_far.keys() ^ found.keys()))
    lacks = f"batch {index} of the evaluation data has" if name in found else "earlier batches have"
    other = "earlier ones do" if name in found else f"batch {index} of the evaluation data does"
    raise LossError(
        f"{lacks} the metric {name!r}, and {other} not: its number would be of fewer samples than "
        "the others'. Report it for every batch: where there is nothing to measure, as "
        "functrain.metrics.Mean.of(values, weights) with weights of 0, or as the empty value of "
        "its kind, functrain.metrics.Mean.empty(device)"
    )


def _has_samples(batch: Batch, index: int) -> bool:
    if count(batch):
        return True
    warn(
        f"batch {index} of the evaluation data has no samples; it was skipped",
        EmptyBatchWarning,
    )
    return False
