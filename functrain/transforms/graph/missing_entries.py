"""Steps that skip parameters: a graph adds no entries to a state, so they are added before it.

Which parameters have a gradient is fixed in a graph. The optimizers give one that has none a
step count of its own (``functrain.optim.update_counts``), which a new state does not hold yet.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch

from functrain.optim.update_counts import is_aligned
from functrain.transforms.graph.inputs import with_tensors


class MissingEntries(NamedTuple):
    """Instead of a graph: the optimizer's state must be aligned with this one first."""

    optimizer: Any


def missing_entries(before: Any, after: Any) -> MissingEntries | None:
    """Return the entries that a captured step adds to the optimizer's state, if any.

    No tensor of the later state is kept.
    """
    if is_aligned(before, after):
        return None
    return MissingEntries(with_tensors(after, itertools.repeat(torch.empty(()))))
