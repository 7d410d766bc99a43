"""Steps that skip parameters: a graph adds no entries to a state, so these are added before it.

Which parameters have a gradient is fixed in a graph. The optimizers give one that has none a
step count of its own (``functrain.optim.update_counts``), which a new state does not hold yet.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch

from functrain.optim.update_counts import is_aligned
from functrain.transforms.graph.inputs import with_tensors


class Skipping(NamedTuple):
    """In the place of a graph: the state of the optimizer has to be aligned with this one first."""

    optimizer: Any


def skipping(before: Any, after: Any) -> Skipping | None:
    """Tell whether a captured step adds entries to the optimizer's state.

    Args:
        before: the optimizer's state before the step.
        after: that after it; of its tensors nothing is kept.
    """
    if is_aligned(before, after):
        return None
    return Skipping(with_tensors(after, itertools.repeat(torch.empty(()))))
