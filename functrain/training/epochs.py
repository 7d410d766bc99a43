"""Epochs of a loop: those stepped by hand are counted, and none may pass without training."""

from __future__ import annotations

import attrs

from functrain.core.state import Counters, TrainState
from functrain.data import Source
from functrain.data.counting import samples_in
from functrain.errors import (
    DataChangedError,
    EmptyDatasetError,
    InvalidPositionError,
    ReplayWarning,
)
from functrain.errors.warning import warn

MOST_EMPTY = 10_000  # in a row; data that has an end is refused at the end of an epoch
_REMEDY = (
    "To begin with the next epoch of this data: attrs.evolve(state, "
    "counters=state.counters.next_epoch()); at another place: attrs.evolve(state, "
    "counters=attrs.evolve(state.counters, epoch=..., batch=...))."
)


def count_epochs(state: TrainState, source: Source) -> TrainState:
    """Return the state with the whole epochs that were stepped by hand counted as epochs.

    ``train_step`` knows no epochs: after 40 calls with epochs of 19 batches the counters say batch
    40 of epoch 0, which is batch 2 of epoch 2.

    Args:
        state: where a run is to begin.
        source: the data it is to go on with.

    Returns:
        The state itself where its batch lies within an epoch, or the length of one is not known.

    Raises:
        InvalidPositionError: the batches cannot be those of this data, or may be those of other
            data that earlier epochs were trained on.
    """
    given, length = state.counters, source.length
    if length is None or given.batch < length:
        return state
    whole, batch = divmod(given.batch, length)
    counted = attrs.evolve(given, epoch=given.epoch + whole, batch=batch)
    if given.batch > length:  # exactly one epoch is the same place by either count
        _check_samples(given, counted, source, length)
    return attrs.evolve(state, counters=counted)


def warn_of_replay(state: TrainState, source: Source) -> None:
    """Warn that the batches before the state's place are read and dropped.

    Args:
        state: where a run goes on.
        source: its data.

    Warns:
        ReplayWarning: the place is within an epoch that can only be read from its beginning.
    """
    at = state.counters
    if at.batch and source.replays:
        warn(
            f"this data can only be read from its beginning: to go on in epoch {at.epoch}, "
            f"{at.batch} batches are drawn and dropped. functrain.data.Batches, or a loader with "
            "state_dict, goes there at once.",
            ReplayWarning,
        )


def check_place(state: TrainState, length: int | None) -> None:
    """Refuse a checkpoint from within an epoch that is longer than those of the data.

    Args:
        state: from the checkpoint; ``fit`` had counted its epochs.
        length: batches in an epoch of the data, where known.

    Raises:
        DataChangedError: its batch lies beyond the end of an epoch.
    """
    at = state.counters
    if length is not None and at.batch > length:
        raise DataChangedError(
            f"{_beyond(at, length)}: it was trained on other data or in other batches. Give the "
            f"data the run was started with, or give the state to a run of its own, fit(state=...) "
            f"with another directory. {_REMEDY}"
        )


def _check_samples(given: Counters, counted: Counters, source: Source, length: int) -> None:
    """Compare the samples that a place implies with those that the state has seen."""
    epoch, rest = samples_in(source, length), samples_in(source, counted.batch)
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


@attrs.define
class Progress:
    """What an epoch has trained so far, so that no loop goes on over data without samples.

    Attributes:
        epoch: its number.
        step: updates made when a batch last had samples.
        untrained: whether this epoch was read from its beginning and no batch has had samples.
        empty: batches without samples since then.
    """

    epoch: int
    step: int
    untrained: bool
    empty: int = 0

    @classmethod
    def begin(cls, counters: Counters) -> Progress:
        """Begin with an epoch, or with the rest of one."""
        return cls(counters.epoch, counters.step, counters.batch == 0)

    def after(self, counters: Counters, ends_epoch: bool) -> None:
        """Note a step.

        Args:
            counters: after it.
            ends_epoch: whether it was the last of its epoch.

        Raises:
            EmptyDatasetError: a whole epoch had no samples, or so many batches that the data may
                have no end.
        """
        if counters.step != self.step:
            self.step, self.untrained, self.empty = counters.step, False, 0
            return
        self.empty += 1
        if ends_epoch or self.empty >= MOST_EMPTY:
            self.end()

    def end(self) -> None:
        """Refuse the epoch if it has ended without a sample.

        Raises:
            EmptyDatasetError: it has.
        """
        if self.untrained or self.empty >= MOST_EMPTY:
            what = f"{self.empty} batches in a row without samples" if self.empty else "no batch"
            raise EmptyDatasetError(
                f"the data gave {what} in epoch {self.epoch}, so nothing can be trained on: "
                "look at what the dataset, its sampler or filter, and the collate function give"
            )
