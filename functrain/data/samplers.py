"""Orders of samples other than sequential and shuffled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import attrs
import torch
from torch import Tensor

from functrain.core.rng import derive
from functrain.data.permutation import Permutation
from functrain.errors.calls import explained
from functrain.errors.validators import integer


@runtime_checkable
class Sampler(Protocol):
    """The order of samples as a pure function of epoch and position, for :class:`Batches`."""

    def __len__(self) -> int:
        """Return the samples in an epoch."""
        ...

    def indices(self, epoch: int, start: int, stop: int) -> Tensor | Sequence[int]:
        """Return the samples at the positions ``start`` to ``stop - 1`` of an epoch.

        Returns:
            int64 tensor of shape ``[stop - start]``, or a sequence of integers of that length.
        """
        ...


@explained
@attrs.frozen(eq=False)
class ByLength:
    """Shuffle samples such that those of a batch have similar lengths, to save padding.

    The shuffled order of an epoch is split into pools. The samples of a pool are sorted by length
    and split into batches, which are shuffled within the pool. Each sample occurs once per epoch.

    Args:
        lengths: lengths of the samples.
        batch_size: the batch size of :class:`Batches`.
        pool: batches in a pool.
        seed: root seed of the order.

    Raises:
        ConfigurationError: ``batch_size`` or ``pool`` is below 1.

    Example:
        >>> from functrain.data import Batches
        >>> texts = ["x" * (k % 7 + 1) for k in range(21)]
        >>> sampler = ByLength([len(text) for text in texts], batch_size=3)
        >>> batches = Batches(texts, 3, sampler=sampler)
        >>> [sorted(len(text) for text in batch) for batch in batches][:3]
        [[3, 3, 3], [5, 5, 5], [4, 4, 4]]
    """

    lengths: Sequence[int] | Tensor
    batch_size: int = attrs.field(validator=integer(minimum=1))
    pool: int = attrs.field(default=64, kw_only=True, validator=integer(minimum=1))
    seed: int = attrs.field(default=0, kw_only=True)
    _lengths: Tensor = attrs.field(init=False, repr=False)

    @_lengths.default
    def _as_tensor(self) -> Tensor:
        return torch.as_tensor(self.lengths)

    def __len__(self) -> int:
        """Return the samples in an epoch."""
        return len(self._lengths)

    def indices(self, epoch: int, start: int, stop: int) -> Tensor | Sequence[int]:
        """Return the samples at the positions ``start`` to ``stop - 1`` of an epoch."""
        if start >= stop:
            return torch.empty(0, dtype=torch.int64)
        width = self.pool * self.batch_size
        first, last = start // width, -(-stop // width)
        found = torch.cat([self._pool(epoch, number) for number in range(first, last)])
        return found[start - first * width : stop - first * width]

    def _pool(self, epoch: int, number: int) -> Tensor:
        width = self.pool * self.batch_size
        first, last = number * width, min((number + 1) * width, len(self))
        samples = Permutation(len(self), self.seed, epoch).indices(first, last)
        samples = samples[self._lengths[samples].argsort(stable=True)]
        # Keep a short last batch at the end of the epoch.
        whole = len(samples) // self.batch_size
        order = Permutation(whole, derive(self.seed, "pool", number), epoch).indices(0, whole)
        batches = samples[: whole * self.batch_size].view(whole, self.batch_size)
        return torch.cat([batches[order].flatten(), samples[whole * self.batch_size :]])
