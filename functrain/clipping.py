"""The norm of all gradients together, and clipping by norm or by value."""

from __future__ import annotations

import torch
from torch import Tensor

# Up to this many elements, one norm over a flat copy is cheaper on the CPU than one per leaf.
_FLAT_ELEMENTS = 1 << 16


def global_norm(grads: list[Tensor]) -> Tensor:
    """The 2-norm of all gradients taken as one vector, bit for bit that of torch's clipping.

    Args:
        grads: gradients of any shapes, at least one.

    Returns:
        Scalar tensor on the device of the first gradient: the norm of the leaves' norms, as
        ``torch.nn.utils.get_total_norm``.

    Example:
        >>> global_norm([torch.tensor([3.0]), torch.tensor([[4.0]])])
        tensor(5.)
    """
    device = grads[0].device
    norms = torch._foreach_norm(grads)
    norm: Tensor = torch.linalg.vector_norm(torch.stack([each.to(device) for each in norms]))
    return norm


def reported_norm(grads: list[Tensor]) -> Tensor:
    """The same norm where nothing is scaled by it, the cheapest way; the last bits may differ."""
    first = grads[0]
    few = sum(map(Tensor.numel, grads)) <= _FLAT_ELEMENTS
    if first.is_cpu and few and all(grad.dtype is first.dtype for grad in grads):
        norm: Tensor = torch.linalg.vector_norm(torch._C._nn.flatten_dense_tensors(grads))
        return norm
    return global_norm(grads)


def clip_by_norm(grads: list[Tensor], max_norm: float, norm: Tensor) -> list[Tensor]:
    """Scale all gradients so that their common norm is at most ``max_norm``.

    The coefficient is that of ``torch.nn.utils.clip_grad_norm_``: ``max_norm / (norm + 1e-6)``,
    at most 1.

    Args:
        grads: gradients; not changed.
        max_norm: the bound.
        norm: their :func:`global_norm`.

    Returns:
        New gradients.
    """
    coefficient = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    return list(torch._foreach_mul(grads, coefficient))


def clip_by_value(grads: list[Tensor], bound: float) -> list[Tensor]:
    """Clamp every element to ``[-bound, bound]``, as ``torch.nn.utils.clip_grad_value_``."""
    lowered = torch._foreach_clamp_max(grads, bound)
    return list(torch._foreach_clamp_min(lowered, -bound))
