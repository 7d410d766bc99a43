"""Generate the events of whole runs in the documented order, without training."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import torch
from hypothesis import strategies as st
from torch import Tensor

from functrain.core.rng import Rng
from functrain.core.state import Counters, TrainState
from functrain.training.events import (
    BatchBegin,
    BatchEnd,
    EpochBegin,
    EpochEnd,
    EvalBegin,
    EvalEnd,
    Event,
    TrainBegin,
    TrainEnd,
)

_SAMPLES = 4


@st.composite
def events(draw: st.DrawFn, max_epochs: int = 3, max_batches: int = 4) -> list[Event]:
    """Draw all events of a run, for testing a listener.

    Args:
        draw: given by Hypothesis.
        max_epochs: the most epochs.
        max_batches: the most batches in each.

    Example:
        >>> from hypothesis import find
        >>> [type(event).__name__ for event in find(events(), lambda found: True)]
        ['TrainBegin', 'EpochBegin', 'BatchBegin', 'BatchEnd', 'EpochEnd', 'TrainEnd']
    """
    epochs, batches = draw(st.integers(1, max_epochs)), draw(st.integers(1, max_batches))
    count = epochs * batches
    losses = st.lists(st.floats(0, 9, width=32), min_size=count, max_size=count)
    evaluates, drawn = draw(st.booleans()), draw(losses)
    return list(_run([drawn[n : n + batches] for n in range(0, count, batches)], evaluates))


def _run(epochs: list[list[float]], evaluates: bool) -> Iterator[Event]:
    """Yield the events of a run with these losses."""
    state, batches = _state(), len(epochs[0])
    yield TrainBegin(state, len(epochs) * batches, batches, None)
    for epoch, losses in enumerate(epochs):
        yield EpochBegin(state, epoch)
        for index, loss in enumerate(losses, start=1):
            batch = torch.zeros(_SAMPLES, 2)
            yield BatchBegin(state, batch)
            state = _after(state, ends_epoch=index == batches)
            yield BatchEnd(state, _metrics(loss))
        mean = {"loss": sum(losses) / len(losses)}
        yield EpochEnd(state, epoch, mean, complete=True)
        if evaluates:
            yield EvalBegin(state, "eval", "params")
            yield EvalEnd(state, "eval", "params", mean)
    yield TrainEnd(state, "max_epochs", f"{len(epochs)} epochs are done")


def _state() -> TrainState:
    zero = torch.zeros((), dtype=torch.int64)
    weights = {"weight": torch.zeros(1, 2)}
    return TrainState(weights, {}, {}, {}, None, None, Rng(0), Counters(0, 0, 0, 0, 0, zero))


def _after(state: TrainState, ends_epoch: bool) -> TrainState:
    counters = attrs.evolve(
        state.counters,
        step=state.counters.step + 1,
        batch=state.counters.batch + 1,
        samples=state.counters.samples + _SAMPLES,
    )
    weights = {"weight": state.params["weight"] + 1}
    counters = counters.next_epoch() if ends_epoch else counters
    return attrs.evolve(state, params=weights, counters=counters)


def _metrics(loss: float) -> dict[str, Tensor]:
    return {
        "loss": torch.tensor(loss),
        "lr": torch.tensor(0.1, dtype=torch.float64),
        "grad_norm": torch.tensor(1.0),
    }
