"""Which tensors are the same memory."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from functrain.checkpoint.dtypes import BY_NAME, dtype_name
from functrain.errors import UnsupportedLeafError
from functrain.tree import Path, path_string


def aliases(tensors: list[tuple[Path, Tensor]]) -> list[int | None]:
    """For every tensor the first one that shows the same memory, or ``None`` if it is that.

    Raises:
        UnsupportedLeafError: a tensor whose values are not in dense memory.
    """
    first: dict[Hashable, int] = {}
    found: list[int | None] = []
    for index, (path, tensor) in enumerate(tensors):
        check(path, tensor)
        earlier = first.setdefault(_memory_shown(tensor), index)
        found.append(None if earlier == index else earlier)
    return found


def check(path: Path, tensor: Tensor) -> None:
    """Refuse a tensor whose values could not be given back exactly.

    Raises:
        UnsupportedLeafError: names path and reason.
    """
    reason = None
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        reason = f"a {type(tensor).__name__}, a subclass of Tensor"
    elif torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        reason = "a tensor inside of vmap or grad"
    elif tensor.is_quantized or tensor.is_nested or dtype_name(tensor.dtype) not in BY_NAME:
        reason = f"a quantized or nested tensor ({tensor.dtype})"
    elif tensor.layout != torch.strided:
        reason = f"a tensor of layout {tensor.layout}"
    elif tensor.is_meta:
        reason = "a meta tensor, which has no values"
    if reason is not None:
        raise UnsupportedLeafError(
            f"{path_string(path)} is {reason}; a checkpoint holds dense tensors. "
            "Convert it before saving"
        )


def _memory_shown(tensor: Tensor) -> Hashable:
    if tensor.numel() == 0:
        return id(tensor)
    where = (tensor.device, tensor.data_ptr(), tensor.is_conj(), tensor.is_neg())
    # The stride of a dimension of size 1 is never used, and views come with any.
    shape = zip(tensor.shape, tensor.stride(), strict=True)
    return (*where, tensor.dtype, *((size, step if size > 1 else 0) for size, step in shape))
