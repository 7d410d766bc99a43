"""The norm of all gradients together, and clipping by norm or by value.

Every function takes ``foreach``: the list kernels of torch, which take one call for all leaves but
know neither ``torch.func.vmap`` nor its like.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Up to this many elements, one norm over a flat copy is cheaper on the CPU than one per leaf.
_FLAT_ELEMENTS = 1 << 16


def global_norm(grads: list[Tensor], foreach: bool = True) -> Tensor:
    """Return the 2-norm of all gradients taken as one vector, bit for bit that of torch's clipping.

    Args:
        grads: gradients of any shapes, at least one.
        foreach: use the list kernels.

    Returns:
        Scalar tensor on the device of the first gradient: the norm of the leaves' norms, as
        ``torch.nn.utils.get_total_norm``.

    Example:
        >>> global_norm([torch.tensor([3.0]), torch.tensor([[4.0]])])
        tensor(5.)
    """
    device = grads[0].device
    each = torch._foreach_norm(grads) if foreach else map(torch.linalg.vector_norm, grads)
    norm: Tensor = torch.linalg.vector_norm(torch.stack([one.to(device) for one in each]))
    return norm


def reported_norm(grads: list[Tensor]) -> Tensor:
    """Return the norm in the cheapest way, for a norm that scales nothing; last bits may differ."""
    first = grads[0]
    few = sum(map(Tensor.numel, grads)) <= _FLAT_ELEMENTS
    if first.is_cpu and few and all(grad.dtype is first.dtype for grad in grads):
        norm: Tensor = torch.linalg.vector_norm(torch._C._nn.flatten_dense_tensors(grads))
        return norm
    return global_norm(grads)


def clipped(
    grads: dict[str, Tensor], clip_norm: float | None, clip_value: float | None, foreach: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """Return gradients clipped by norm and by value, and the norm that they had before.

    Args:
        grads: gradients by path, at least one; not changed.
        clip_norm: bound on their common norm, or ``None``.
        clip_value: bound on each element, or ``None``.
        foreach: use the list kernels.
    """
    flat = list(grads.values())
    norm = reported_norm(flat) if foreach and clip_norm is None else global_norm(flat, foreach)
    if clip_norm is not None:
        flat = clip_by_norm(flat, clip_norm, norm, foreach)
    if clip_value is not None:
        flat = clip_by_value(flat, clip_value, foreach)
    return dict(zip(grads, flat, strict=True)), norm


def clip_by_norm(
    grads: list[Tensor], max_norm: float, norm: Tensor, foreach: bool = True
) -> list[Tensor]:
    """Scale all gradients so that their common norm is at most ``max_norm``.

    The coefficient is that of ``torch.nn.utils.clip_grad_norm_``: ``max_norm / (norm + 1e-6)``,
    at most 1.

    Args:
        grads: gradients; not changed.
        max_norm: the bound.
        norm: their :func:`global_norm`.
        foreach: use the list kernels.

    Returns:
        New gradients.
    """
    coefficient = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    scaled = torch._foreach_mul(grads, coefficient) if foreach else [x * coefficient for x in grads]
    # One without dimensions takes on the dtype of the norm where that is the wider.
    return [
        new if new.dtype is grad.dtype else new.to(grad.dtype)
        for new, grad in zip(scaled, grads, strict=True)
    ]


def clip_by_value(grads: list[Tensor], bound: float, foreach: bool = True) -> list[Tensor]:
    """Clamp every element to ``[-bound, bound]``, as ``torch.nn.utils.clip_grad_value_``."""
    if foreach:
        return list(torch._foreach_clamp_min(torch._foreach_clamp_max(grads, bound), -bound))
    return [grad.clamp(-bound, bound) for grad in grads]
