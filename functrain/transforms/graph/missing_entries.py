"""Steps that skip parameters: a graph adds no entries to a state, so they are added before it."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from functrain.optim.update_counts import is_aligned
from functrain.transforms.graph.inputs import with_tensors


class MissingEntriesError(Exception):
    """The optimizer's state must be aligned with another one before a step is captured.

    Which parameters have a gradient is fixed in a graph. The optimizers give one that has none a
    step count of its own (``functrain.optim.update_counts``), which a new state does not hold yet.

    Attributes:
        optimizer: the other state, with any values.
    """

    def __init__(self, optimizer: Any) -> None:
        super().__init__()
        self.optimizer = optimizer


def require_entries(before: Any, after: Any) -> None:
    """Raise :class:`MissingEntriesError` if a step adds entries to the optimizer's state."""
    if not is_aligned(before, after):
        # The tensors of the later state belong to the capture.
        raise MissingEntriesError(with_tensors(after, itertools.repeat(torch.empty(()))))
