"""Whether a state or a checkpoint fits the arguments of ``fit``: seed, limits and position."""

from __future__ import annotations

from collections.abc import Sized
from pathlib import Path
from typing import Any

import attrs
from torch.utils.data import DataLoader, default_collate

from functrain import tree
from functrain.checkpoint.run_state import LoopState, RunState
from functrain.core.batch import count
from functrain.core.protocol import AnyState, State
from functrain.core.rng import checked_seed
from functrain.core.state import Counters, with_fields
from functrain.data.iterables import IterableSource
from functrain.data.parts import CutSource
from functrain.data.prefetched import Prefetched
from functrain.data.source import BatchesSource, LimitedSource, ListSource, Source
from functrain.errors import (
    ConfigurationError,
    DataChangedError,
    InvalidPositionError,
    ReplayWarning,
    ResumeWarning,
    RunChangedError,
)
from functrain.errors.base import warn
from functrain.training.limits import Ending, Limits, Position


def check_seed(seed: int | None, train: AnyState, path: Path | None) -> None:
    """Refuse a seed that would have no effect."""
    if seed is None or checked_seed(seed) == train.rng.seed:
        return
    own = f"whose seed is {train.rng.seed}: leave seed= out to resume with that"
    other = f"state=ft.fork(state, seed={seed})"
    if path is None:
        raise ConfigurationError(
            f"seed={seed} has no effect on the given state, {own}, or give {other}"
        )
    raise RunChangedError(
        f"seed={seed} has no effect on the run in {path.parent}, {own}. Choose another directory "
        f"for a run of that seed, or for one that begins with a state of this run by {other}"
    )


def check_unused(state: AnyState | None, saved: AnyState) -> None:
    """Refuse a new state of another seed; warn that a state which has made steps is not used."""
    if state is None:
        return
    if state.counters.step == 0:
        if state.rng.seed != saved.rng.seed:
            raise RunChangedError(
                f"the state that was given as state= has the seed {state.rng.seed}, and the run "
                f"resumes from its own checkpoint of step {saved.counters.step}, whose seed is "
                f"{saved.rng.seed}. Choose another directory to begin with the state, or leave "
                "state= out"
            )
        return
    if not tree.equal(state, saved):
        warn(
            f"the state of step {state.counters.step} that was given as state= is not used: the "
            f"run resumes from its own checkpoint of step {saved.counters.step}. Choose another "
            "directory to begin with the state, or leave state= out",
            ResumeWarning,
        )


def ended_before(
    saved: RunState, loop: LoopState, info: dict[str, Any], limits: Limits, batches: int | None
) -> str | None:
    """Return how the run of a checkpoint ended, if limits and rules leave nothing to train."""
    if saved.loop.owed is not None:
        return None
    limit = limits.reached(Position.of(saved.train, batches, info.get("seconds", 0.0)))
    stopped = loop.early_stop.get("stop")
    if limit is not None:
        return f"{limit.reason}: {limit.detail}"
    return f"early_stop: {stopped}" if stopped else None


def warn_of_longer_run(
    at: int, steps: int | None, limit: Ending | None, stopped: str | None, path: Path
) -> None:
    """Warn that a run went on beyond the end that this call asks for.

    Args:
        at: the step of the run.
        steps: the steps that the limits of this call allow, where known.
        limit: the limit that the run had reached before its last step.
        stopped: why it ends by other rules than it had.
        path: its checkpoint.
    """
    if steps is not None and at > steps:
        why = f"beyond the {steps} of this until"
    elif limit is not None:
        why = f"beyond the {limit.detail.removeprefix('reached ')} of this until"
    elif stopped is not None:
        why = f"and by the early_stop of this call it has ended ({stopped})"
    else:
        return
    warn(
        f"the run in {path.parent} is at step {at}, {why}: nothing is trained, and the result is "
        "the state of that step. Choose another directory for a shorter run, or go back with "
        "resume=STEP",
        ResumeWarning,
    )


_REMEDY = (
    "To begin with the next epoch of this data: attrs.evolve(state, "
    "counters=state.counters.next_epoch()); at another place: attrs.evolve(state, "
    "counters=attrs.evolve(state.counters, epoch=..., batch=...))."
)


def count_epochs(state: State, source: Source) -> State:
    """Return the state with whole epochs of ``train_step`` calls counted as epochs.

    ``train_step`` knows no epochs: after 40 calls with epochs of 19 batches the counters say batch
    40 of epoch 0, which is batch 2 of epoch 2.

    The state stays if its batch lies within an epoch, or the length of an epoch is unknown.
    """
    given, length = state.counters, source.length
    if length is None or given.batch < length:
        return state
    whole, batch = divmod(given.batch, length)
    counted = attrs.evolve(given, epoch=given.epoch + whole, batch=batch)
    if given.batch > length:  # exactly one epoch is the same place by either count
        _check_samples(given, counted, source, length)
    return with_fields(state, counters=counted)


def warn_of_replay(state: AnyState, source: Source) -> None:
    """Warn that the batches before the position of a state are read and dropped."""
    at = state.counters
    if at.batch and source.replays:
        dropped = "1 batch is" if at.batch == 1 else f"{at.batch} batches are"
        warn(
            f"this data can only be read from its beginning: to resume in epoch {at.epoch}, "
            f"{dropped} drawn and dropped. functrain.data.Batches, or a loader with state_dict, "
            "goes there at once.",
            ReplayWarning,
        )


def check_position(state: AnyState, length: int | None) -> None:
    """Refuse a checkpoint from within an epoch that is longer than an epoch of the data."""
    at = state.counters
    if length is not None and at.batch > length:
        raise DataChangedError(
            f"{_beyond(at, length)}: it was trained on other data or in other batches. Give the "
            f"data the run was started with, or start a new run from the state, fit(state=...) "
            f"with another directory. {_REMEDY}"
        )


def _check_samples(given: Counters, counted: Counters, source: Source, length: int) -> None:
    """Compare the samples up to a position with those that the state has seen."""
    epoch, rest = count_samples(source, length), count_samples(source, counted.batch)
    if epoch is None or rest is None:
        if given.epoch == 0:  # train_step alone has counted
            return
        why = "its earlier epochs may have been of other data"
    else:
        samples = counted.epoch * epoch + rest
        if samples == given.samples:
            return
        why = (
            f"there {samples} samples would have been seen, and the state has seen {given.samples}"
        )
    raise InvalidPositionError(
        f"{_beyond(given, length)}. That may be batch {counted.batch} of epoch {counted.epoch}, "
        f"but {why}. {_REMEDY}"
    )


def _beyond(at: Counters, length: int) -> str:
    return (
        f"the state is at batch {at.batch} of epoch {at.epoch}, but an epoch of this data has "
        f"{length} batches"
    )


def count_samples(source: Source, batches: int) -> int | None:
    """Return the number of samples in the first batches of an epoch; ``None`` if it is unknown."""
    if isinstance(source, Prefetched | CutSource | LimitedSource):
        return count_samples(source.data, batches)
    if isinstance(source, ListSource):
        return sum(count(batch) for batch in source.batches[:batches])
    if isinstance(source, BatchesSource):
        data = source.batches
        if data.collate is not None or hasattr(data.dataset, "batch_at"):
            return None
        return min(batches * data.batch_size, data.samples)
    return _in_loader(source.data, batches) if isinstance(source, IterableSource) else None


def _in_loader(loader: Any, batches: int) -> int | None:
    # A subclass may yield other batches than its dataset and sampler imply.
    if type(loader) is not DataLoader or loader.collate_fn is not default_collate:
        return None
    if loader.batch_size is None or not isinstance(loader.sampler, Sized):
        return None
    return min(batches * loader.batch_size, len(loader.sampler))
