"""Access the bytes of tensors, as the operating system reads and writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from functrain.tree.elements import as_integers


def on_host(tensor: Tensor) -> Tensor:
    """Return the values of a tensor, contiguous and on the CPU; copy only if necessary.

    Conjugate and negative views are resolved. A copy of a dtype with few kernels has integer
    elements with the same bits.
    """
    if tensor.is_cpu and tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg():
        return tensor
    resolved = tensor.detach().resolve_conj().resolve_neg()
    return as_integers(resolved).contiguous().cpu()


def memory(tensor: Tensor) -> memoryview:
    """Return a writable view of the memory of a contiguous CPU tensor, which it keeps alive.

    Example:
        >>> memory(torch.ones(2, dtype=torch.int16)).hex()
        '01000100'
    """
    data = tensor.detach().as_strided((tensor.numel(),), (1,)).view(torch.uint8)
    # Not by Tensor.numpy(), after which the tensor could never be resized.
    array: Any = np.from_dlpack(data)
    return memoryview(array)


def byte_range(tensor: Tensor, first: int, last: int) -> Tensor:
    """Return some bytes of a row-major copy of a tensor, copying no other rows.

    Example:
        >>> byte_range(torch.tensor([[1, 2], [3, 4]], dtype=torch.int8).T, 1, 3)
        tensor([3, 2], dtype=torch.uint8)
    """
    rows = tensor.detach().reshape(1) if tensor.ndim == 0 else tensor.detach()
    row = rows.nbytes // len(rows)
    begin, end = first // row, -(-last // row)
    resolved = rows[begin:end].resolve_conj().resolve_neg()
    flat = as_integers(resolved).contiguous().view(-1).view(torch.uint8)
    return flat[first - begin * row : last - begin * row].cpu()


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Allocate uninitialized memory on the CPU, regardless of the default device."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def with_stride(tensor: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Copy a CPU tensor into memory with the given strides."""
    copied = torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype, device="cpu")
    as_integers(copied).copy_(as_integers(tensor))
    return copied


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a row-major tensor, as torch defines them.

    Example:
        >>> contiguous_stride((2, 3, 4))
        (12, 4, 1)
    """
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def preserved_stride(tensor: Tensor) -> tuple[int, ...] | None:
    """Return the strides to save, or ``None`` for a row-major tensor.

    torch chooses kernels by memory layout, so a channels-last weight restored as row-major would
    train to different bits. Gaps and expanded dimensions are not preserved, as in torch's
    ``preserve_format``.
    """
    # A dimension of size 1 is contiguous with any stride, but kernels distinguish the strides.
    if tensor.numel() == 0 or (tensor.is_contiguous() and 1 not in tensor.shape):
        return None
    if tensor.stride() == contiguous_stride(tuple(tensor.shape)):
        return None
    stride = torch.empty_like(tensor, device="meta").stride()
    return None if stride == contiguous_stride(tuple(tensor.shape)) else stride


def is_dense(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Return whether strides order the elements of a shape without gaps or overlap.

    Example:
        >>> is_dense((2, 3), (1, 2)), is_dense((2, 3), (1, 1))
        (True, False)
    """
    step = 1
    for own, size in sorted(zip(stride, shape, strict=True)):
        if size != 1:
            if own != step:
                return False
            step *= size
    return True


def is_here(device: torch.device) -> bool:
    """Return whether this machine has a device.

    Example:
        >>> is_here(torch.device("cpu")), is_here(torch.device("meta"))
        (True, False)
    """
    backend: Any = getattr(torch, device.type, None)
    return device.type == "cpu" or (
        hasattr(backend, "is_available")
        and backend.is_available()
        and (device.index or 0) < backend.device_count()
    )
