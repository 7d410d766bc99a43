"""The events of a run, as frozen values in a fixed order.

For every step: ``BatchBegin``, ``BatchEnd``; then, where they apply, ``EpochEnd``, ``EvalBegin``
and ``EvalEnd`` of each evaluation, ``MemberStopped``, ``MemberReplaced``, ``EarlyStopped``,
``CheckpointSaved``. A run begins with ``TrainBegin`` and ends with ``TrainEnd``; an epoch that a
limit cuts has its ``EpochEnd`` too.

Metrics of a population have a number for each member: tensors have the shape ``[members]``, and
numbers are lists, with ``None`` for members that have stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import attrs
from torch import Tensor

from functrain.core.state import TrainState


@attrs.frozen
class TrainBegin:
    """A run begins or resumes.

    Attributes:
        state: where it begins.
        steps: updates that it is limited to, where known.
        batches: loader batches in an epoch, where known.
        resumed: the checkpoint that it resumes from, if any.
        ended: how the run in the checkpoint ended, where nothing is left to train.
        rank: of this process among those that train together; only rank 0 writes and prints.
        config: the recipe of the program, the data, and what ``fit`` was given, as plain data; for
            experiment trackers.
    """

    state: TrainState
    steps: int | None
    batches: int | None
    resumed: Path | None
    ended: str | None = None
    rank: int = 0
    config: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class EpochBegin:
    """The first batch of an epoch, or the first after a resumption within one, is next."""

    state: TrainState
    epoch: int


@attrs.frozen
class BatchBegin:
    """A step is about to be made with ``batch``."""

    state: TrainState
    batch: Any


@attrs.frozen
class BatchEnd:
    """A step was made. ``metrics`` are tensors, not yet fetched from the device.

    A listener that returns a mapping of more of them (or of numbers) adds to the row of the step in
    the log, and to the metrics that the listeners after it are given.
    """

    state: TrainState
    metrics: Mapping[str, Tensor]


@attrs.frozen
class EpochEnd:
    """An epoch ended.

    Attributes:
        state: where the run stands.
        epoch: which one, from 0.
        metrics: means over its samples, as numbers.
        complete: false where the run ended within the epoch.
    """

    state: TrainState
    epoch: int
    metrics: Mapping[str, Any]
    complete: bool


@attrs.frozen
class EvalBegin:
    """An evaluation begins.

    Attributes:
        state: what is evaluated.
        name: the evaluation set.
        weights: ``params`` or ``ema``.
    """

    state: TrainState
    name: str
    weights: str


@attrs.frozen
class EvalEnd:
    """An evaluation ended.

    Attributes:
        state: what was evaluated.
        name: the evaluation set.
        weights: ``params`` or ``ema``.
        metrics: over its samples, as numbers.
        values: the merged metrics behind these (``training.evaluation.measure``), such as a
            :class:`functrain.metrics.ConfusionMatrix` with its counts.
    """

    state: TrainState
    name: str
    weights: str
    metrics: Mapping[str, Any]
    values: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class EarlyStopped:
    """The early-stopping rule has decided that the run ends."""

    state: TrainState
    detail: str


@attrs.frozen
class MemberStopped:
    """The early-stopping rule has stopped a member of a population; the others go on.

    Attributes:
        state: of all members, where the run stands.
        member: its index.
        detail: why.
    """

    state: TrainState
    member: int
    detail: str


@attrs.frozen
class MemberReplaced:
    """A rule has replaced a member of a population, which goes on from another one.

    Attributes:
        state: of all members, where the run stands.
        member: its index.
        by: the index of the other, whose weights and hyperparameters it has now.
        values: by path, the hyperparameters that were changed.
    """

    state: TrainState
    member: int
    by: int
    values: Mapping[str, float]


@attrs.frozen
class CheckpointSaved:
    """A checkpoint is on the disk, durable."""

    state: TrainState
    path: Path


@attrs.frozen
class TrainEnd:
    """The run ended; ``reason`` is one of ``Run.reason``'s."""

    state: TrainState
    reason: str
    detail: str


Event: TypeAlias = (
    TrainBegin
    | EpochBegin
    | BatchBegin
    | BatchEnd
    | EpochEnd
    | EvalBegin
    | EvalEnd
    | MemberStopped
    | MemberReplaced
    | EarlyStopped
    | CheckpointSaved
    | TrainEnd
)


@attrs.frozen
class Stop:
    """Returned by a listener to end the run after the present step.

    Attributes:
        detail: why, for ``Run.detail``.
    """

    detail: str = "a listener asked for it"


# A listener is any object with methods named after events: on_train_begin, on_batch_end, ... If it
# has a method `close`, that is called where an exception ends a run, which then has no TrainEnd.
# Where several ranks train together, only rank 0 calls listeners; but every rank calls those that
# have an attribute `every_rank` that is true. A listener that does something together with other
# ranks, as reading a placed tensor or evaluating a placed state is, needs it. Of these, too, only
# the one of rank 0 (TrainBegin.rank) should write, and only its state and its metrics are kept.
# Placed tensors in that state are saved from all ranks.
Listener: TypeAlias = Any
