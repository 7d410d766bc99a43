"""Weighted means of a program's metrics over a data set."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from torch import Tensor

from functrain.batch import Batch, size
from functrain.data import Source, as_source
from functrain.data.drawing import generator_states, set_generator_states
from functrain.errors import EmptyBatchWarning
from functrain.precision import widest
from functrain.program import Program
from functrain.state import TrainState


class Interrupted(Exception):  # noqa: N818 (not an error: it carries a decision upwards)
    """Raised inside an evaluation when the run is asked to end."""


def evaluate(
    program: Program,
    state: TrainState,
    data: object,
    *,
    weights: str = "params",
    batches: int | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Loss and metrics over a data set, each sample counted alike.

    Args:
        program: whose ``evaluate`` (or ``loss``) is used.
        state: what is evaluated; not changed, and neither is any random generator.
        data: anything ``fit`` takes; its first epoch is used.
        weights: ``"params"`` or ``"ema"``.
        batches: only so many of the first batches.
        interrupted: asked before each batch.

    Returns:
        Means weighted by ``Loss.weight`` (by default the batch size).

    Raises:
        Interrupted: ``interrupted`` said so.
    """
    source = as_source(data)
    loader = getattr(source, "data", None)
    # A loader with its own generator draws its order from it: each evaluation the same one.
    held = generator_states(loader)
    try:
        return _means(program, state, source, weights, batches, interrupted)
    finally:
        set_generator_states(loader, held)


def _means(
    program: Program,
    state: TrainState,
    source: Source,
    weights: str,
    batches: int | None,
    interrupted: Callable[[], bool],
) -> dict[str, float]:
    sums: dict[str, Tensor] = {}
    total: Tensor | None = None
    for index, batch in enumerate(source.epoch(0, 0, 0, None)):
        if interrupted():
            raise Interrupted
        if batches is not None and index >= batches:
            break
        if not _has_samples(batch, index):
            continue
        outcome = program.outcome(state, batch, weights)
        wide = widest(state.device)
        weight = outcome.weight_of(batch).to(wide)
        total = weight if total is None else total + weight
        for name, value in {"loss": outcome.value, **outcome.metrics}.items():
            term = value.to(wide) * weight
            sums[name] = sums[name] + term if name in sums else term
    if total is None:
        return {}
    return {name: float(value / total) for name, value in sums.items()}


def _has_samples(batch: Batch, index: int) -> bool:
    if size(batch):
        return True
    warnings.warn(
        f"batch {index} of the evaluation data has no samples; it was passed over",
        EmptyBatchWarning,
        stacklevel=3,
    )
    return False
