"""The bytes of tensors, as the operating system reads and writes them."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from functrain.tree.elements import as_integers


def on_host(tensor: Tensor) -> Tensor:
    """The logical values of a tensor on the CPU, contiguous; a copy only where one is needed.

    Conjugate and negative views are resolved, and only what the tensor shows of its storage is
    there. For dtypes with few kernels a copy's elements are integers of the same bits.
    """
    if tensor.is_cpu and tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg():
        return tensor
    resolved = tensor.detach().resolve_conj().resolve_neg()
    return as_integers(resolved).contiguous().cpu()


def memory(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor, writable.

    The view does not keep the tensor alive: hold the tensor as long as the view.

    Example:
        >>> ones = torch.ones(2, dtype=torch.int16)
        >>> memory(ones).hex()
        '01000100'
    """
    size = tensor.numel() * tensor.element_size()
    if size == 0:
        return memoryview(bytearray())
    return memoryview((ctypes.c_char * size).from_address(tensor.data_ptr())).cast("B")


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Uninitialised contiguous memory on the CPU, whatever the default device is."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def with_stride(tensor: Tensor, stride: tuple[int, ...]) -> Tensor:
    """A copy of a CPU tensor that lies in memory with the strides given."""
    copied = torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype, device="cpu")
    as_integers(copied).copy_(as_integers(tensor))
    return copied


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a row-major tensor, as torch gives them.

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
    """Strides worth keeping, ``None`` where rows are simply contiguous.

    Kernels are chosen by memory layout, so a channels-last weight that came back row-major would
    train to other bits. Gaps and repeats are not kept; this is torch's ``preserve_format``.
    """
    # With a size of 1, several strides are contiguous, and kernels tell them apart.
    if tensor.numel() == 0 or (tensor.is_contiguous() and 1 not in tensor.shape):
        return None
    if tensor.stride() == contiguous_stride(tuple(tensor.shape)):
        return None
    stride = torch.empty_like(tensor, device="meta").stride()
    return None if stride == contiguous_stride(tuple(tensor.shape)) else stride


def is_dense(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether strides order a shape's elements without gaps or overlap.

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
    """Whether this machine has a device.

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
