"""Draw the sources of a mixture: a pure function of (seed, index of the draw).

Random numbers are hashes of the index, so any range of draws can be computed directly. Counting
how often each source was drawn before takes 15 to 50 ns a draw.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from functrain.core.rng import derive
from functrain.data.permutation import hashed
from functrain.data.weights import Weights

BLOCK = 1 << 15  # draws under one key


@attrs.frozen(eq=False)
class WeightedDraws:
    """The source of each of the draws 0, 1, 2, ...

    Example:
        >>> from functrain.data.weights import Constant
        >>> weights = Constant(torch.tensor([[3.0, 1.0]], dtype=torch.float64))
        >>> choices = WeightedDraws(weights, sources=2, seed=0)
        >>> choices.between(0, 10).tolist(), choices.counts(10)
        ([1, 0, 0, 1, 1, 0, 0, 0, 0, 1], [6, 4])
        >>> choices.counts(1_000_000)
        [749630, 250370]
    """

    weights: Weights
    sources: int
    seed: int
    per_batch: int = 1
    # Counts before each block, computed on demand: a cache of a pure function.
    _before: list[Tensor] = attrs.field(init=False, repr=False)

    @_before.default
    def _nothing_yet(self) -> list[Tensor]:
        return [torch.zeros(self.sources, dtype=torch.int64)]

    def between(self, start: int, stop: int) -> Tensor:
        """Return the sources of the draws ``start`` to ``stop - 1``: int64 ``[stop - start]``."""
        parts = [
            self._in_block(block, max(start - block * BLOCK, 0), min(stop - block * BLOCK, BLOCK))
            for block in range(start // BLOCK, -(-stop // BLOCK))
        ]
        return torch.cat([torch.empty(0, dtype=torch.int64), *parts])

    def counts(self, draw: int) -> list[int]:
        """Return how often each source was drawn before ``draw``."""
        block, offset = divmod(draw, BLOCK)
        while len(self._before) <= block:
            full = self._count(len(self._before) - 1, BLOCK)
            self._before.append(self._before[-1] + full)
        counts: list[int] = (self._before[block] + self._count(block, offset)).tolist()
        return counts

    def _count(self, block: int, offset: int) -> Tensor:
        return torch.bincount(self._in_block(block, 0, offset), minlength=self.sources)

    def _in_block(self, block: int, start: int, stop: int) -> Tensor:
        if start >= stop:
            return torch.empty(0, dtype=torch.int64)
        # Hash with two keys: with one, two blocks could be permutations of each other.
        numbers = torch.arange(start, stop)
        for key in range(2):
            numbers = hashed(numbers, derive(self.seed, "mixture", block, key) & 0xFFFFFFFF)
        first, last = block * BLOCK + start, block * BLOCK + stop
        batches = (first // self.per_batch, -(-last // self.per_batch))
        limits = _limits(self.weights.at(*batches))
        if len(limits) == 1:
            return torch.searchsorted(limits[0], numbers, right=True)
        if self.per_batch > 1:
            limits = limits[torch.arange(first, last) // self.per_batch - batches[0]]
        return (limits[:, :-1] <= numbers[:, None]).sum(1)


def _limits(weights: Tensor) -> Tensor:
    """Return where the share of each source in ``range(2**32)`` ends, as int64."""
    sums = weights.cumsum(1)
    return (sums / sums[:, -1:] * 2.0**32).to(torch.int64)
