"""Norms that neither overflow nor lose digits in half precision: taken in float32 at least."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def norm(leaf: Tensor, unitwise: bool = False) -> Tensor:
    """Return the 2-norm of a leaf.

    Args:
        leaf: of any shape and floating-point or complex dtype.
        unitwise: whether to take one norm for each index of the first dimension, an output of a
            layer in torch's layout; of a leaf with fewer than two dimensions it is still one.

    Returns:
        A real tensor: 0-dim, or of shape [n, 1, ..., 1].

    Example:
        >>> norm(torch.tensor([[3.0, 4.0], [6.0, 8.0]]), unitwise=True)
        tensor([[ 5.],
                [10.]])
    """
    wide = torch.promote_types(leaf.dtype, torch.float32)
    several = unitwise and leaf.ndim > 1
    dims = list(range(1, leaf.ndim)) if several else None
    found: Tensor = torch.linalg.vector_norm(leaf, dim=dims, keepdim=several, dtype=wide)
    return found


def global_norm(leaves: Iterable[Tensor], device: torch.device) -> Tensor:
    """Return the 2-norm of all leaves taken as one vector.

    Args:
        leaves: of any shapes, dtypes and devices; without any the norm is 0.
        device: where the result goes.

    Returns:
        A 0-dim float64 tensor, or float32 where the device has no wider type.

    Example:
        >>> global_norm([torch.tensor([3.0]), torch.tensor([[4.0]])], torch.device("cpu"))
        tensor(5., dtype=torch.float64)
    """
    wide = torch.float32 if device.type == "mps" else torch.float64
    each = [norm(leaf).to(device, wide) for leaf in leaves]
    if not each:
        return torch.zeros((), dtype=wide, device=device)
    total: Tensor = torch.linalg.vector_norm(torch.stack(each))
    return total
