"""Buffers over the parts of a step, and the shapes that they may take.

Batch norm's statistics end as if the parts had gone through it one after another: each forward
moves them by a fixed share towards those of its part, so the moves of parts that all began with
the same statistics can be composed.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


def may_become(buffer: Tensor, shape: Sequence[int]) -> bool:
    """Whether a buffer may be the placeholder of one of a given shape.

    An empty one may be that of any; another one where broadcasting it gives the shape, as one
    number does that becomes one for each channel.

    Example:
        >>> import torch
        >>> scale, table = torch.ones(1), torch.zeros(8, 4)
        >>> may_become(scale, [6]), may_become(torch.zeros(0), [2, 3]), may_become(table, [16, 4])
        (True, True, False)
    """
    pairs = zip(reversed(buffer.shape), reversed(shape), strict=False)
    broadcast = buffer.ndim <= len(shape) and all(ours in (1, theirs) for ours, theirs in pairs)
    return broadcast or buffer.numel() == 0


# What moves the statistics by torch's rule.
_FORWARDS = (nn.modules.batchnorm._BatchNorm.forward, nn.SyncBatchNorm.forward)


class Statistic(NamedTuple):
    """A running mean or variance of batch norm.

    Attributes:
        norm: the layer, whose ``momentum`` may change in the course of a run.
        counter: path of ``num_batches_tracked``.
    """

    norm: nn.modules.batchnorm._BatchNorm
    counter: str

    @property
    def is_torchs(self) -> bool:
        """Whether torch's own forward moves it; that of a subclass may do so by another rule."""
        return type(self.norm).forward in _FORWARDS


def statistics(module: nn.Module, paths: dict[int, str]) -> dict[str, Statistic]:
    """Return the statistics of all batch norms by path; ``paths`` are by the ids of buffers."""
    found = {}
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None:
            counter = paths[id(norm.num_batches_tracked)]
            for tensor in (norm.running_mean, norm.running_var):
                found[paths[id(tensor)]] = Statistic(norm, counter)
    return found


def composable(found: dict[str, Statistic]) -> dict[str, Statistic]:
    """Return the statistics of which the parts of a step all begin with the old ones.

    Others are passed on from part to part, as buffers are.
    """
    return {path: one for path, one in found.items() if one.is_torchs}


def restarted(
    found: dict[str, Statistic], before: dict[str, Tensor], old: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return the buffers that a part begins with: statistics of batch norm are always the old."""
    paths = {*found, *(one.counter for one in found.values())}
    return {**before, **{path: old[path] for path in paths}} if paths else before


def statistics_after(
    found: dict[str, Statistic], old: dict[str, Tensor], each: Sequence[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Return the statistics of batch norms, and their counters, after a step.

    Each of its parts began with the old ones.
    """
    counters = {one.counter for one in found.values()}
    counts = {path: [buffers[path] for buffers in each] for path in counters}
    after = {path: summed(old[path], values) for path, values in counts.items()}
    for path, one in found.items():
        values = [buffers[path] for buffers in each]
        after[path] = in_turn(one, old[path], values, counts[one.counter], old[one.counter])
    return after


def summed(old: Tensor, each: Sequence[Tensor]) -> Tensor:
    """Return a buffer as if the parts had added to it one after another."""
    return functools.reduce(operator.add, (value - old for value in each), old)


def in_turn(
    found: Statistic, old: Tensor, each: Sequence[Tensor], counts: Sequence[Tensor], before: Tensor
) -> Tensor:
    """Return a statistic as if the parts had gone through batch norm one after another.

    Each value and count is that after one part, from ``old`` and ``before``.
    """
    start, momentum = old.double(), found.norm.momentum
    forwards = [count - before for count in counts]
    if momentum is None:
        total = start * before
        for value, count in zip(each, counts, strict=True):
            total = total + (value.double() * count - start * before)
        seen = functools.reduce(operator.add, forwards, before)
        return (total / seen.clamp(min=1)).to(old.dtype)
    now = start
    for value, many in zip(each, forwards, strict=True):
        kept = torch.pow(start.new_full((), 1 - momentum), many)
        now = now * kept + (value.double() - start * kept)
    return now.to(old.dtype)
