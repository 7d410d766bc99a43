"""Whether tensors have their memory to themselves."""

from __future__ import annotations

import torch
from torch import Tensor, UntypedStorage


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
    return _most_on_one(tensors) <= _ALONE


def _most_on_one(tensors: list[Tensor]) -> int:
    """The most holders that the memory of any tensor has."""
    users = map(torch._C._storage_Use_Count, [each._cdata for each in _storages(tensors)])
    return max(users, default=0)


def _storages(tensors: list[Tensor]) -> list[UntypedStorage]:
    try:
        return list(map(Tensor.untyped_storage, tensors))
    except RuntimeError:  # of a layout that has no storage; to ask each beforehand takes as long
        strided = [tensor for tensor in tensors if tensor.layout is torch.strided]
        return list(map(Tensor.untyped_storage, strided))


# The tensor, and the storage that is asked.
_ALONE = _most_on_one([torch.empty(1)])
