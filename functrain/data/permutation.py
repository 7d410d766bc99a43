"""Shuffle as a pure function: compute the sample at a position without building the whole order.

A Feistel network maps positions to indices. Each round adds a hash of one half of a number to the
other half, which is invertible for any hash, so the network is a bijection. Results outside the
data set go through the network again until they fall inside ("cycle walking").
Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002.
"""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from functrain.core.rng import derive
from functrain.errors import BatchIndexError

_ROUNDS = 8
_SMALL = 256
_SMALL_ROUNDS = 16  # few bits mix slowly: 6 samples need more than 8 rounds, 12 suffice
_MASK32 = (1 << 32) - 1


@attrs.frozen
class Permutation:
    """A shuffled order of ``range(size)`` for each (seed, epoch), the same in all versions.

    Args:
        size: number of samples, less than 2**62.
        seed: root seed.
        epoch: index of the epoch.

    Example:
        >>> order = Permutation(size=10, seed=0, epoch=0)
        >>> order.indices(0, 10)
        tensor([7, 3, 1, 2, 8, 6, 4, 9, 5, 0])
        >>> order.indices(4, 6)
        tensor([8, 6])
    """

    size: int
    seed: int
    epoch: int

    def indices(self, start: int, stop: int) -> Tensor:
        """Return the samples at the positions ``start`` to ``stop - 1`` in linear time.

        Returns:
            int64 tensor of shape ``[stop - start]``.

        Raises:
            BatchIndexError: no such positions exist.
        """
        # From a position outside the range, cycle walking might not return to it.
        if start < stop and not 0 <= start < stop <= self.size:
            raise BatchIndexError(f"no positions {start} to {stop - 1} of {self.size} samples")
        # A number below rows * columns is split into (row, column). Odd permutations occur only
        # if the number of rows is even.
        rows = math.isqrt(max(self.size - 1, 0)) + 1
        rows += rows % 2
        columns = -(-self.size // rows)
        rounds = _SMALL_ROUNDS if self.size < _SMALL else _ROUNDS
        keys = [derive(self.seed, "order", self.epoch, k) & _MASK32 for k in range(rounds)]
        found = _network(torch.arange(start, stop), rows, columns, keys)
        outside = (found >= self.size).nonzero().squeeze(1)
        while len(outside):
            again = _network(found[outside], rows, columns, keys)
            found[outside] = again
            outside = outside[again >= self.size]
        return found


def _network(numbers: Tensor, rows: int, columns: int, keys: list[int]) -> Tensor:
    """Permute ``range(rows * columns)``, alternating between rows and columns."""
    row = numbers // columns
    column = numbers - row * columns
    for k in range(0, len(keys), 2):
        row = _add(row, hashed(column, keys[k]), rows)
        column = _add(column, hashed(row, keys[k + 1]), columns)
    return row.mul_(columns).add_(column)


def hashed(numbers: Tensor, key: int) -> Tensor:
    """Mix each number with a key into 32 bits, the high ones best.

    Multipliers have 31 bits, so that no product overflows. They and the shifts are those of
    Chris Wellons' hash-prospector (16 21f0aaad 15 735a2d97), without its last shift, which
    only improves low bits.
    """
    mixed = numbers ^ key
    mixed ^= mixed >> 16
    mixed.mul_(0x21F0AAAD).bitwise_and_(_MASK32)
    mixed ^= mixed >> 15
    return mixed.mul_(0x735A2D97).bitwise_and_(_MASK32)


def _add(numbers: Tensor, mixed: Tensor, size: int) -> Tensor:
    """Add modulo ``size`` a 32-bit hash, scaled to ``range(size)``."""
    total = mixed.mul_(size).bitwise_right_shift_(32).add_(numbers).sub_(size)
    # A negative number shifted by 63 is -1, all ones, so this adds size where total is negative.
    return total.add_((total >> 63).bitwise_and_(size))
