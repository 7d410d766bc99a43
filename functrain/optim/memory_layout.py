"""Where a kernel may be used: how tensors that are updated together lie in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_FUSED_DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_FUSED_DEVICES = frozenset({"cpu", "cuda", "xpu"})


def fusible(kinds: set[tuple[torch.dtype, torch.device]]) -> bool:
    """Tell whether there are kernels for these dtypes on these devices."""
    return all(dtype in _FUSED_DTYPES and dev.type in _FUSED_DEVICES for dtype, dev in kinds)


def alike(params: list[Tensor], grads: list[Tensor], slots: Sequence[list[Tensor]]) -> bool:
    """Tell whether each leaf's tensors have one dtype and size and lie alike in memory.

    The fused kernels walk the storages side by side and do not look at strides: a transposed
    or expanded gradient would silently update the wrong elements.

    Args:
        params: the parameters.
        grads: their gradients.
        slots: what is remembered of them, list by list; ``None`` where a leaf has no such slot.

    Example:
        >>> matrix = torch.zeros(2, 3)
        >>> alike([matrix], [matrix], []), alike([matrix], [torch.zeros(3, 2).t()], [])
        (True, False)
    """
    others = (grads, *slots)
    if not _agree(_dtypes, params, others) or not _agree(_sizes, params, others):
        return False
    contiguous = Tensor.is_contiguous
    if all(all(map(contiguous, leaves)) for leaves in (params, *others)):
        return True
    strides = [param.stride() for param in params]
    same = all([leaf.stride() for leaf in leaves] == strides for leaves in others)
    return same and all(map(_dense, params))


def laid_out_as(param: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient with the strides of its parameter, copied where it has others."""
    same = grad.stride() == param.stride()
    return grad if same else torch.empty_like(param).copy_(grad)


def _agree(
    of: Callable[[list[Tensor]], list[Any]], first: list[Tensor], others: Sequence[list[Tensor]]
) -> bool:
    expected = of(first)
    return all(of(leaves) == expected for leaves in others)


# Two lists of plain values a list of leaves: one of pairs takes half as long again.
def _dtypes(leaves: list[Tensor]) -> list[torch.dtype]:
    return [leaf.dtype for leaf in leaves if leaf is not None]


def _sizes(leaves: list[Tensor]) -> list[int]:
    return list(map(Tensor.numel, leaves))


def _dense(tensor: Tensor) -> bool:
    """Whether the elements fill their storage without gaps or overlaps, in some order."""
    return bool(torch.ops.aten.is_non_overlapping_and_dense(tensor))
