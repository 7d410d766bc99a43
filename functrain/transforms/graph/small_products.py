"""Products of small matrices on the CPU, written out so that they fuse with what is around them.

To call a matrix library costs more than a product of 16 by 16 does. Written as multiply and sum
it becomes a loop among the other loops of the step: one of 100 layers of 16 units takes a fifth
less time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Multiplications up to which a loop is used; products of 64 by 64 and more were not tried.
LIMIT = 20_000


def mm(a: Tensor, b: Tensor) -> Tensor:
    """``torch.mm`` of two small matrices."""
    if not _small(a, b):
        return NotImplemented  # type: ignore[no-any-return]
    return (a.unsqueeze(-1) * b.unsqueeze(0)).sum(1)


def addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``torch.addmm`` of two small matrices."""
    if (beta, alpha) != (1, 1) or not _small(a, b):
        return NotImplemented  # type: ignore[no-any-return]
    return mm(a, b) + bias


def _small(a: Tensor, b: Tensor) -> bool:
    return a.is_cpu and a.dtype is torch.float32 and a.numel() * b.shape[1] <= LIMIT


DECOMPOSITIONS: dict[Any, Any] = {
    torch.ops.aten.mm.default: mm,
    torch.ops.aten.addmm.default: addmm,
}
