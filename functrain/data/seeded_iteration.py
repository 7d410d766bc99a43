"""Iterate over a user's loader reproducibly.

A loader may draw from the global generators of torch, Python or NumPy at any call: for its order,
for the seeds of its workers, for augmentation. Here each call finds them seeded by its position,
and they are restored afterwards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from torch import Generator, Tensor

from functrain.core.rng import derive, sample_scope
from functrain.errors import DataChangedError, EmptyDatasetError

END: Any = object()


def length_of(data: Any) -> int | None:
    """Return the number of batches in an epoch, or ``None`` if the data has no length."""
    try:
        return len(data)
    except (TypeError, NotImplementedError):
        return None


def begin(data: Any, seed: int, epoch: int) -> Iterator[Any]:
    """Start a pass over the data, seeded by seed and epoch.

    Calls ``set_epoch`` where it exists, as in distributed samplers and streamed datasets.
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
    """Return the next batch, or ``END``."""
    with sample_scope() as scope:
        scope.seed(derive(seed, "loader", epoch, index))
        return next(batches, END)


def drop(batches: Iterator[Any], seed: int, epoch: int, start: int, stop: int) -> None:
    """Draw and discard the batches ``start`` to ``stop - 1``."""
    for index in range(start, stop):
        if draw(batches, seed, epoch, index) is END:
            raise DataChangedError(
                f"the state stands after {stop} batches of epoch {epoch}, but that epoch of the "
                f"data ends after {index}. Give the data the run was started with. If these are "
                "whole epochs that were stepped by hand, count each at its end, state = "
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
    """Yield the batches from ``index`` on, and call ``at_end`` with their number at the end.

    If the length is known, the end is reached before the last batch is yielded. A state saved after
    that batch is then the one in which the next epoch begins.
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
    """Return the generators that a loader or its samplers own, by attribute."""
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
    """Return the states of these generators."""
    return {place: generator.get_state() for place, generator in generators(data).items()}


def set_generator_states(data: Any, states: dict[str, Tensor]) -> None:
    """Restore the states of these generators."""
    for place, generator in generators(data).items():
        if place in states:
            generator.set_state(states[place])


@contextlib.contextmanager
def keep_generators(data: Any) -> Iterator[None]:
    """Let a loader draw from generators of its own, and put them back at the end."""
    held = generator_states(data)
    try:
        yield
    finally:
        set_generator_states(data, held)


def refuse_empty(data: Any, epoch: int) -> NoReturn:
    """Raise an error for an epoch without batches."""
    kind = type(data).__name__
    if isinstance(data, Iterator):
        why = f"this {kind} was read to its end before; give something that can be iterated again"
    else:
        why = f"check what this {kind} yields each time it is iterated"
    raise EmptyDatasetError(f"the data gave no batch in epoch {epoch}: {why}")
