"""Whether tensors have their memory to themselves."""

from __future__ import annotations

import torch
from torch import Tensor


def unshared(tensors: list[Tensor]) -> bool:
    """Whether no other tensor lies on the memory of several: no view, ``detach()``, ``numpy()``.

    Args:
        tensors: of any layout; memory that is not torch's is not looked at.

    Example:
        >>> weight = torch.zeros(3)
        >>> unshared([weight])
        True
        >>> kept = weight.detach()
        >>> unshared([weight])
        False
    """
    return max(map(_tensors_on, tensors), default=0) <= _ALONE


def _tensors_on(tensor: Tensor) -> int:
    if tensor.layout is not torch.strided:
        return 0
    return int(torch._C._storage_Use_Count(tensor.untyped_storage()._cdata))


# The tensor, and the storage that is asked.
_ALONE = _tensors_on(torch.empty(1))
