"""Find tensors that are views of the same memory, and refuse those that only overlap."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from functrain.checkpoint.format.dtypes import DTYPES
from functrain.errors import UnsupportedError
from functrain.tree import Path, path_string
from functrain.tree.overlapping import counting, overlapping
from functrain.tree.torch_internals import is_wrapped

Named = list[tuple[Path, Tensor]]


def aliases(tensors: Named) -> list[int | None]:
    """Return for every tensor the index of the first alias, or ``None`` if it is the first.

    Tensors are aliases if they are the same view: address, dtype, shape, strides (of sizes above
    1), conjugation and negation. Sharing memory in any other way is an error, because a checkpoint
    could not restore it: a matrix and its transpose, a tensor and its slice, overlapping slices,
    the same bytes with another dtype. Slices that share no byte are allowed, even interleaved
    ones, as are empty tensors and expanded ones.

    The answer is exact, except for views that interleave irregularly in more than a million
    contiguous pieces: these are assumed to overlap.

    Raises:
        UnsupportedError: the values of a tensor are not in dense memory, or two tensors
            overlap without being the same view; the message names both.

    Example:
        >>> w = torch.zeros(2, 3)
        >>> aliases([(("w",), w), (("same",), w[:]), (("copy",), w.clone())])
        [None, 0, None]
    """
    begins: dict[int, list[int]] = {}
    found: list[int | None] = []
    distinct: list[int] = []
    for index, (path, tensor) in enumerate(tensors):
        check(path, tensor)
        if tensor.numel() == 0:
            found.append(None)
            continue
        start = tensor.data_ptr()
        # Few tensors share an address, so the full comparison is rare.
        others = begins.setdefault(start, [])
        shown = _shown(tensor) if others else None
        first = next((each for each in others if _shown(tensors[each][1]) == shown), None)
        found.append(first)
        if first is None:
            others.append(index)
            distinct.append(index)
    _refuse_overlap([tensors[index] for index in distinct])
    return found


def _refuse_overlap(named: Named) -> None:
    pair = overlapping([tensor for _, tensor in named])
    if pair is not None:
        one, two = (path_string(named[index][0]) for index in pair)
        raise UnsupportedError(
            f"{one} and {two} share some of their memory without being the same view of it, which "
            "a checkpoint could not restore. Clone one of them, or use the same tensor at both "
            "places"
        )


def _shown(tensor: Tensor) -> Hashable:
    view = tensor.device, tensor.dtype, tensor.is_conj(), tensor.is_neg()
    return (*view, counting(tensor))


def check(path: Path, tensor: Tensor) -> None:
    """Raise if the values of a tensor could not be restored exactly."""
    cls = type(tensor)
    reason = None
    if cls is not Tensor and cls is not torch.nn.Parameter:
        reason = f"a {cls.__name__}, a subclass of Tensor"
    elif is_wrapped(tensor):
        reason = "a tensor inside of vmap or grad"
    elif tensor.dtype not in DTYPES or tensor.is_nested:
        reason = f"a quantized or nested tensor ({tensor.dtype})"
    elif tensor.layout != torch.strided:
        reason = f"a tensor of layout {tensor.layout}"
    elif tensor.is_meta:
        reason = "a meta tensor, which has no values"
    if reason is not None:
        raise UnsupportedError(
            f"{path_string(path)} is {reason}; a checkpoint holds tensors with values in plain "
            "memory. Convert it before saving"
        )
