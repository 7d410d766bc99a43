"""Drawing batches from someone else's loader without leaving anything to chance.

A loader may draw from torch's, Python's or NumPy's global generators whenever it is asked for
something: for its order, for the seeds of its workers, for augmentation. Here each such call
finds them seeded for its own position, and the user finds them afterwards as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from torch import Generator, Tensor

from functrain.core.rng import derive, sample_scope
from functrain.errors import DataChangedError, EmptyDatasetError

END: Any = object()


def length_of(data: Any) -> int | None:
    """Batches in an epoch, if the data knows."""
    try:
        return len(data)
    except (TypeError, NotImplementedError):
        return None


def begin(data: Any, seed: int, epoch: int) -> Iterator[Any]:
    """Start a pass over the data, as the function of seed and epoch that it is.

    Whatever has ``set_epoch``, as distributed samplers and streamed datasets have, is told.
    """
    for name in ("sampler", "batch_sampler", "dataset"):
        _set_epoch(getattr(data, name, None), epoch)
    _set_epoch(data, epoch)
    with sample_scope() as scope:
        scope.seed(derive(seed, "loader", epoch))
        return iter(data)


def _set_epoch(part: Any, epoch: int) -> None:
    if callable(getattr(part, "set_epoch", None)):
        part.set_epoch(epoch)


def draw(batches: Iterator[Any], seed: int, epoch: int, index: int) -> Any:
    """The next batch, or ``END``."""
    with sample_scope() as scope:
        scope.seed(derive(seed, "loader", epoch, index))
        return next(batches, END)


def drop(batches: Iterator[Any], seed: int, epoch: int, start: int, stop: int) -> None:
    """Draw and drop the batches ``start`` to ``stop - 1``.

    Raises:
        DataChangedError: they are not all there.
    """
    for index in range(start, stop):
        if draw(batches, seed, epoch, index) is END:
            raise DataChangedError(
                f"the state stands after {stop} batches of epoch {epoch}, but that epoch of the "
                f"data ends after {index}. Give the data the run was started with. If these are "
                "whole epochs that were stepped by hand, turn each where it ends, state = "
                "attrs.evolve(state, counters=state.counters.next_epoch()), or give the data a "
                "length (__len__), so that they can be counted."
            )


def remaining(
    batches: Iterator[Any],
    *,
    seed: int,
    epoch: int,
    index: int,
    length: int | None,
    at_end: Callable[[int], None],
) -> Iterator[Any]:
    """Draw the batches from ``index`` on; at their end, call ``at_end`` with their number.

    Where the length is known, the end is reached before the last batch is handed out. So what is
    saved after that batch is the state in which the next epoch begins.
    """
    batch = draw(batches, seed, epoch, index)
    while batch is not END:
        index += 1
        following = draw(batches, seed, epoch, index) if index == length else None
        if following is END:
            at_end(index)
        yield batch
        if following is END:
            return
        batch = draw(batches, seed, epoch, index) if following is None else following
    at_end(index)


def generators(data: Any) -> dict[str, Generator]:
    """The generators that a loader or its samplers hold themselves, by place."""
    batch_sampler = getattr(data, "batch_sampler", None)
    parts = {
        "loader": data,
        "sampler": getattr(data, "sampler", None),
        "batch_sampler": batch_sampler,
        "batch_sampler.sampler": getattr(batch_sampler, "sampler", None),
    }
    found = {place: getattr(part, "generator", None) for place, part in parts.items()}
    return {place: held for place, held in found.items() if isinstance(held, Generator)}


def generator_states(data: Any) -> dict[str, Tensor]:
    """The states of these generators."""
    return {place: generator.get_state() for place, generator in generators(data).items()}


def set_generator_states(data: Any, states: dict[str, Tensor]) -> None:
    """Put these generators back."""
    for place, generator in generators(data).items():
        if place in states:
            generator.set_state(states[place])


def refuse_empty(data: Any, epoch: int) -> NoReturn:
    """Raise for an epoch without batches."""
    kind = type(data).__name__
    if isinstance(data, Iterator):
        why = f"this {kind} was read to its end before; give something that can be iterated again"
    else:
        why = f"look at what this {kind} gives each time it is iterated"
    raise EmptyDatasetError(f"the data gave no batch in epoch {epoch}: {why}")
