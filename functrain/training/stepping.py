"""From data to steps: grouping loader batches, and the turn of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from functrain.core.batch import Batch, MicroBatches
from functrain.core.program import Metrics, Program
from functrain.core.state import TrainState
from functrain.data import Source
from functrain.training.position import Position


def position(state: TrainState, batches: int | None, seconds: float = 0.0) -> Position:
    """Where a state stands, in the terms of durations.

    Args:
        state: the state.
        batches: loader batches in an epoch, where known.
        seconds: time trained.
    """
    at = state.counters
    return Position(at.step, at.samples, seconds / 60, at.epoch, at.batch, batches)


def advance(
    program: Program, state: TrainState, batch: Batch, ends_epoch: bool
) -> tuple[TrainState, Metrics]:
    """One step, and the turn of the epoch where it is the last of one."""
    state, metrics = program.train_step(state, batch)
    if ends_epoch:
        state = attrs.evolve(state, counters=state.counters.next_epoch())
    return state, metrics


def epoch_batches(
    source: Source, state: TrainState, accumulate: int, saved: Any
) -> Iterator[tuple[Batch, bool]]:
    """The remaining steps of an epoch: what each is given, and whether it is the last.

    Args:
        source: the data.
        state: where the run stands.
        accumulate: loader batches in a step; a shorter rest at the end makes a step too.
        saved: the source's own saved state, on resumption.
    """
    counters, seed = state.counters, state.rng.seed
    del state  # or it would be held, and could not be donated, for as long as the epoch lasts
    batches = source.epoch(seed, counters.epoch, counters.batch, saved)
    group: list[Batch] = []
    for batch, last in _with_last(batches, source.length, counters.batch):
        group.append(batch)
        if last or len(group) == accumulate:
            yield (MicroBatches(group) if accumulate > 1 else batch), last
            group = []


def _with_last(
    batches: Iterator[Batch], length: int | None, start: int
) -> Iterator[tuple[Batch, bool]]:
    """Each batch with whether it is the last; looks one ahead only where the length is unknown."""
    if length is not None:
        for index, batch in enumerate(batches, start + 1):
            yield batch, index >= length
            if index >= length:
                return
        return
    previous: list[Batch] = []
    for batch in batches:
        if previous:
            yield previous.pop(), False
        previous.append(batch)
    if previous:
        yield previous.pop(), True
