"""Quantiles of values over a data set."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Quantiles(NamedTuple):
    """Exact quantiles; they keep all values.

    Attributes:
        values: all values so far, [n].
        at: the quantiles to compute, from 0 to 1.

    Example:
        >>> one = Quantiles.of(torch.tensor([3.0, 1.0]), at=(0.5,))
        >>> one.merge(Quantiles.of(torch.tensor([2.0]), at=(0.5,))).compute()
        {'p50': tensor(2.)}
    """

    values: Tensor
    at: tuple[float, ...] = (0.05, 0.5, 0.95)

    @classmethod
    def of(cls, values: Tensor, at: tuple[float, ...] = (0.05, 0.5, 0.95)) -> Quantiles:
        """Return the quantiles of values of any shape."""
        return cls(values.detach().flatten(), tuple(at))

    @classmethod
    def empty(
        cls, at: tuple[float, ...] = (0.05, 0.5, 0.95), device: torch.device | str = "cpu"
    ) -> Quantiles:
        """Return the quantiles of no values."""
        return cls(torch.zeros(0, device=device), tuple(at))

    def merge(self, other: Quantiles) -> Quantiles:
        """Return the quantiles over the values of both."""
        return Quantiles(torch.cat([self.values, other.values]), self.at)

    def compute(self) -> dict[str, Tensor]:
        """Return the quantiles by name, such as ``p50``; interpolate linearly between two values.

        Like ``torch.quantile``, but without its limit of 16 million values. NaN without values.
        """
        ordered, count = self.values.sort().values, len(self.values)
        if not count:
            return {_name(share): self.values.new_full((), torch.nan) for share in self.at}
        found = {}
        for share in self.at:
            place = share * (count - 1)
            below = int(place)
            above = min(below + 1, count - 1)
            found[_name(share)] = torch.lerp(ordered[below], ordered[above], place - below)
        return found


def _name(share: float) -> str:
    return f"p{round(share * 100, 6):g}"
