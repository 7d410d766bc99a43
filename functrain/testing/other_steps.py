"""A step other than the checked one, as a run makes it before or after."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from functrain.testing.conditions import Conditions
from functrain.testing.fake_system import FakeSystem
from functrain.tree import containers

OTHER_CONDITIONS = Conditions(
    system=FakeSystem(now=2e9 + 0.7, process=4343, seed=1),
    seeds={"torch": 1, "random": 1, "numpy": 1},
)
"""The conditions of the other step."""


def every_second_sample(batch: Any) -> Any:
    """Return a batch of the same shape with every second sample, each twice.

    Its means differ, and it contains only samples that occur in the data.
    """
    return _mapped(_every_other, batch)


def other_batches(batch: Any) -> Iterator[Any]:
    """Yield variations of a batch to try one after the other, from least to most similar.

    Not every batch can lose samples: if one sample holds all the images, it has to stay.

    Example:
        >>> [other.tolist() for other in other_batches(torch.arange(4))]
        [[0, 0, 2, 2], [3, 0, 1, 2], [0, 1, 2, 3]]
    """
    yield every_second_sample(batch)
    yield _mapped(_rolled, batch)
    yield copy.deepcopy(batch)


def _rolled(leaf: Any) -> Any:
    return leaf.roll(1, 0) if isinstance(leaf, Tensor) and leaf.dim() else leaf


def _every_other(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor) or not leaf.dim():
        return leaf
    return leaf[torch.arange(len(leaf), device=leaf.device) // 2 * 2]


def _mapped(function: Callable[[Any], Any], batch: Any) -> Any:
    """Map like ``tree.map``, but also inside objects of any class."""
    if isinstance(batch, Tensor) or not containers.is_container(batch):
        return function(batch)
    parts = [_mapped(function, child) for _, child in containers.children(batch)]
    return containers.rebuild(batch, parts)
