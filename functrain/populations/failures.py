"""Steps of a population that change nothing: batches without samples, and no finite member."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from functrain.core.batch import Split
from functrain.core.state import TrainState
from functrain.errors import EmptyBatchWarning
from functrain.errors.base import warn


def skipped(state: TrainState, given: Split, members: int) -> tuple[TrainState, dict[str, Tensor]]:
    """Count a batch without samples, and warn; nothing else changes."""
    counters = state.counters.after(given, state.counters.skipped)
    warn(
        f"step {counters.step}: the batch has no samples; it was skipped and counted in "
        "state.counters.empty",
        EmptyBatchWarning,
    )
    nothing = torch.full((members,), math.nan)
    metrics = {"loss": nothing, "lr": nothing, "grad_norm": nothing}
    return attrs.evolve(state, counters=counters), metrics
