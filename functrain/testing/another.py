"""Another step than the one that is checked, as a run makes it before or after."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from functrain.testing.conditions import Conditions
from functrain.testing.system import System
from functrain.tree import containers

ANOTHER = Conditions(
    system=System(now=2e9 + 0.7, process=4343, seed=1),
    seeds={"torch": 1, "random": 1, "numpy": 1},
)
"""The circumstances of another step."""


def thinned(batch: Any) -> Any:
    """A batch of the same form with every other sample of a batch, each twice.

    Its means are others, and it holds nothing that such a batch may not hold.

    Args:
        batch: any tree; tensors hold a sample a row.

    Example:
        >>> thinned({"x": torch.arange(5), "name": "a"})
        {'x': tensor([0, 0, 2, 2, 4]), 'name': 'a'}
    """
    return _mapped(_every_other, batch)


def others(batch: Any) -> Iterator[Any]:
    """Batches like a given one, from the least to the most like it, to try one after the other.

    Not every batch may be thinned: where one sample has all the images, the other has to stay.

    Args:
        batch: any tree; tensors hold a sample a row.

    Example:
        >>> [other.tolist() for other in others(torch.arange(4))]
        [[0, 0, 2, 2], [3, 0, 1, 2], [0, 1, 2, 3]]
    """
    yield thinned(batch)
    yield _mapped(_rolled, batch)
    yield copy.deepcopy(batch)


def _rolled(leaf: Any) -> Any:
    return leaf.roll(1, 0) if isinstance(leaf, Tensor) and leaf.dim() else leaf


def _every_other(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor) or not leaf.dim():
        return leaf
    return leaf[torch.arange(len(leaf), device=leaf.device) // 2 * 2]


def _mapped(function: Callable[[Any], Any], batch: Any) -> Any:
    """Like ``tree.map``, in objects of any class too."""
    if isinstance(batch, Tensor) or not containers.is_container(batch):
        return function(batch)
    parts = [_mapped(function, child) for _, child in containers.children(batch)]
    return containers.rebuild(batch, parts)
