"""From data to steps: the batches of an epoch, grouped for accumulation, and its end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from functrain.core.batch import Batch
from functrain.core.batch_splitting import MicroBatches
from functrain.core.loss import Metrics
from functrain.core.protocol import AnyProgram, AnyState, State, require_program
from functrain.core.state import with_fields
from functrain.data import Source, as_source
from functrain.data.batch_parts import Sharing
from functrain.data.iterables import IteratorSource
from functrain.data.parts import by_parts, step_parts
from functrain.data.reading_errors import naming_dead_workers
from functrain.data.source import Wrapper
from functrain.errors import DataChangedError, LengthWarning
from functrain.errors.base import warn
from functrain.errors.calls import explained
from functrain.schedules.schedule_end import ScheduleEnd, guarded, scheduled
from functrain.training.agreement import world_of
from functrain.training.compatibility import count_epochs, warn_of_replay
from functrain.training.epoch_progress import EpochProgress
from functrain.training.limits import Limits, Position, Until
from functrain.training.phases import counting_epochs


@explained
def iterate(
    program: AnyProgram,
    state: State,
    data: Any,
    *,
    until: Until | None = None,
    schedule_end: ScheduleEnd = None,
) -> Iterator[tuple[State, Metrics]]:
    """Step through data from the position of a state, one step at a time.

    Args:
        program: the program to train.
        state: where to begin, epoch and batch within it included.
        data: anything ``fit`` takes. The state of a loader that has one (such as a ``DataLoader``
            with its own generator) is not in ``state``: to resume within its epoch, use ``fit``.
        until: where to end; by default at the end of the present epoch, so that calling again with
            the last state goes through the next one.
        schedule_end: as for ``fit``, where ``until`` is given.

    Yields:
        (state after the step, its metrics).

    Raises:
        ConfigurationError: several processes were started, and the program is not sharded.
        ParameterMismatchError: the state is of another program.
        InvalidPositionError: it stands beyond the end of an epoch, where that may be of other data.
        EmptyDatasetError: the data has no samples.
        UnsupportedError: ``state`` is not a ``TrainState``.
        ScheduleEndedError: the steps up to ``until`` would have a learning rate of zero.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> state = program.init()
        >>> for state, metrics in ft.iterate(program, state, [torch.ones(4, 2)] * 3):
        ...     pass
        >>> state.counters.step, state.counters.epoch, state.counters.batch
        (3, 1, 0)
    """
    require_program(program)
    world_of(program, "iterate")
    program.require(state)
    program = counting_epochs(program)
    source = source_of(program, data)
    state, began = count_epochs(state, source), time.monotonic()
    limits = None if until is None else Limits.of(until)
    if limits is not None:
        steps = limits.steps(source.length, program.recipe.accumulate)
        state = scheduled(program, state, steps, schedule_end)
        program = guarded(program, steps, schedule_end)
    first = state.counters.step

    def present() -> State:
        return state

    def has_ended() -> bool:
        if limits is None:  # at the end of an epoch that had a step
            return state.counters.batch == 0 and state.counters.step > first
        seconds = time.monotonic() - began if limits.timed else 0.0
        return limits.reached(Position.of(state, source.length, seconds)) is not None

    with naming_dead_workers(), contextlib.closing(source):
        if isinstance(source, IteratorSource):  # what it drops cannot be read again
            warn_of_replay(state, source)
        for move in moves(program, source, present, has_ended):
            state, metrics = make_move(program, state, move)
            if metrics is not None:
                yield state, metrics


class Move(NamedTuple):
    """What a loop does next: it begins an epoch, makes a step, or ends an epoch without one.

    Attributes:
        has_step: whether a step is made, with ``batch``.
        ends_epoch: whether the next epoch begins after it.
    """

    has_step: bool = False
    batch: Batch = None
    ends_epoch: bool = False


def moves(
    program: AnyProgram,
    source: Source,
    state: Callable[[], AnyState],
    has_ended: Callable[[], bool],
    saved: Any = None,
) -> Iterator[Move]:
    """Yield what a loop does next, epoch after epoch, until the run has ended.

    ``state`` returns the state after the last move, from whose position the data is read.
    ``saved`` is the loaded state of the source, on resumption.
    """
    accumulate, sharing = program.recipe.accumulate, sharing_of(program)
    while not has_ended():
        epoch, progress = state().counters.epoch, EpochProgress.begin(state().counters)
        yield Move()
        for batch, ends_epoch in epoch_batches(source, state(), accumulate, saved, sharing):
            yield Move(True, batch, ends_epoch)
            progress.after(state().counters, ends_epoch)
            if has_ended():
                return
        saved = None
        if state().counters.epoch == epoch:
            # The data ended before its own length said so, or had no more of this epoch.
            progress.end()
            yield Move(ends_epoch=True)


def make_move(program: AnyProgram, state: State, move: Move) -> tuple[State, Metrics | None]:
    """Make the step of a move, if it has one, and begin the next epoch where one ends."""
    metrics: Metrics | None = None
    if move.has_step:
        state, metrics = program.train_step(state, move.batch)
    if move.ends_epoch:
        state = with_fields(state, counters=state.counters.next_epoch())
    return state, metrics


def source_of(program: AnyProgram, data: Any) -> Source:
    """Return data as a source; a sharded program reads the parts of its rank, where it can."""
    source, sharing = as_source(data), sharing_of(program)
    return source if sharing is None else by_parts(source, sharing, program.recipe.accumulate)


def sharing_of(program: AnyProgram) -> Sharing | None:
    """Return how the ranks of a sharded program share a batch; ``None`` if it is one part."""
    sharing: Sharing | None = getattr(program.device_step, "sharing", None)
    return None if sharing == Sharing(parts=1) else sharing


def epoch_batches(
    source: Source, state: AnyState, accumulate: int, saved: Any, sharing: Sharing | None = None
) -> Iterator[tuple[Batch, bool]]:
    """Yield the remaining steps of an epoch: the batch of each, and whether it is the last.

    ``accumulate`` loader batches make a step, fewer at the end too; ``saved`` is the loaded state
    of the source, on resumption.
    """
    counters, seed = state.counters, state.rng.seed
    del state  # a reference here would prevent donation for the whole epoch
    batches = source.epoch(seed, counters.epoch, counters.batch, saved)
    group: list[Batch] = []
    for batch, last in _with_last(batches, source.length, counters.batch):
        if last and getattr(source, "is_longer", False):
            _warn_of_rest(source)
        group.append(batch)
        if last or len(group) == accumulate:
            if sharing is not None:
                yield step_parts(group, sharing), last
            else:
                yield (MicroBatches(group) if accumulate > 1 else batch), last
            group = []


def _with_last(
    batches: Iterator[Batch], length: int | None, start: int
) -> Iterator[tuple[Batch, bool]]:
    """Yield each batch with whether it is the last; draw ahead only if the length is unknown."""
    if length is not None:
        index = start
        for index, batch in enumerate(batches, start + 1):
            yield batch, index >= length
            if index >= length:
                return
        if index < length:
            # Evaluations and saves at the end of the epoch were not made after the last batch.
            raise DataChangedError(
                f"the data has a length of {length} batches, and an epoch of it ended after "
                f"{index}. Evaluations, early stopping and schedules depend on the end of an "
                "epoch: correct its __len__, or remove it, and the end is found by reading ahead. "
                "In a DataLoader the length is from its dataset"
            )
        return
    previous: list[Batch] = []
    for batch in batches:
        if previous:
            yield previous.pop(), False
        previous.append(batch)
    if previous:
        yield previous.pop(), True


def _warn_of_rest(source: Any) -> None:
    """Warn that a loader like torch's has more batches, which a plain loop would train on."""
    while isinstance(source, Wrapper):
        source = source.data
    loader = source.data
    if not hasattr(loader, "dataset"):  # other data may be endless, with the length of an epoch
        return
    kind, dataset = type(loader).__name__, type(loader.dataset).__name__
    warn(
        f"the {kind} over {dataset} has a length of {source.length} batches and gives more: the "
        "rest of each epoch is not trained on. With workers over an IterableDataset the length is "
        "an estimate, since each worker ends with a batch of its own. Remove __len__ from "
        f"{dataset}, and an epoch ends where the data does (a schedule then needs steps=), or "
        "correct the length of the loader",
        LengthWarning,
    )
