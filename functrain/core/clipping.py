"""The norm of all gradients together, and clipping by norm or by value.

The norm of a step of one part is torch's, bit for bit. Torch adds up the squares of a whole leaf in
an order of its own, which a process that holds some rows of it cannot follow. So that of a step of
several parts is the sum over blocks of whole rows: the sum of a block is a function of that block
alone, and the sums of all blocks are added in their order.

``foreach`` says whether to use torch's list kernels, which take one call for all leaves but know
neither ``torch.func.vmap`` nor its like.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

# Up to this many elements, one norm over a flat copy is cheaper on the CPU than one per leaf.
_FLAT_ELEMENTS = 1 << 16

# Elements whose blocks are summed together.
_TOGETHER = 1 << 18

ALIGNMENT = 64
"""Elements. Cuts at multiples of it leave no vector loop of a kernel another remainder."""


def clipped(
    grads: dict[str, Tensor],
    clip_norm: float | Tensor | None,
    clip_value: float | Tensor | None,
    foreach: bool,
    norm: Tensor | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Return gradients clipped by norm and by value, and the norm that they had before.

    ``norm`` is the norm before, where it is known already.
    """
    flat = list(grads.values())
    if norm is None:
        norm = torch_norm(flat, clip_norm, foreach)
    if clip_norm is None and clip_value is None:
        return grads, norm
    if clip_norm is not None:
        flat = clip_by_norm(flat, clip_norm, norm, foreach)
    if clip_value is not None:
        flat = clip_by_value(flat, clip_value, foreach)
    return dict(zip(grads, flat, strict=True)), norm


def clip_by_norm(
    grads: list[Tensor], max_norm: float | Tensor, norm: Tensor, foreach: bool = True
) -> list[Tensor]:
    """Scale all gradients so that their common norm is at most ``max_norm``.

    The coefficient is that of ``torch.nn.utils.clip_grad_norm_``: ``max_norm / (norm + 1e-6)``,
    at most 1.
    """
    if isinstance(max_norm, Tensor):
        max_norm = max_norm.to(norm.dtype)
    # As torch divides a number by a tensor, so that a tensor instead of it gives the same bits.
    coefficient = ((norm + 1e-6).reciprocal() * max_norm).clamp(max=1.0)
    scaled = torch._foreach_mul(grads, coefficient) if foreach else [x * coefficient for x in grads]
    # One without dimensions takes on the dtype of the norm where that is the wider.
    return [
        new if new.dtype is grad.dtype else new.to(grad.dtype)
        for new, grad in zip(scaled, grads, strict=True)
    ]


def clip_by_value(grads: list[Tensor], bound: float | Tensor, foreach: bool = True) -> list[Tensor]:
    """Clamp every element to ``[-bound, bound]``, as ``torch.nn.utils.clip_grad_value_``."""
    if foreach and not isinstance(bound, Tensor):
        return list(torch._foreach_clamp_min(torch._foreach_clamp_max(grads, bound), -bound))
    least: Any = -bound
    most: Any = bound
    # As above: one without dimensions.
    return [grad.clamp(least, most).to(grad.dtype) for grad in grads]


def torch_norm(
    grads: list[Tensor], clip_norm: float | Tensor | None, foreach: bool = True
) -> Tensor:
    """Return the norm of a step of one part.

    A norm that scales nothing is found in the cheapest way; its last bits may differ.
    """
    if clip_norm is not None or not foreach or not grads[0].is_cpu:
        return global_norm(grads, foreach)
    few = sum(map(Tensor.numel, grads)) <= _FLAT_ELEMENTS
    if not few or len({grad.dtype for grad in grads}) > 1:
        return global_norm(grads)
    norm: Tensor = torch.linalg.vector_norm(torch.cat(list(map(torch.ravel, grads))))
    return norm


def global_norm(grads: list[Tensor], foreach: bool = True) -> Tensor:
    """Return the 2-norm of all gradients taken as one vector, bit for bit that of torch's clipping.

    The norm is that of the leaves' norms, as ``torch.nn.utils.get_total_norm``, on the device of
    the first.

    Example:
        >>> global_norm([torch.tensor([3.0]), torch.tensor([[4.0]])])
        tensor(5.)
    """
    device = grads[0].device
    each = torch._foreach_norm(grads) if foreach else map(torch.linalg.vector_norm, grads)
    norm: Tensor = torch.linalg.vector_norm(torch.stack([one.to(device) for one in each]))
    return norm


def block_norm(grads: Sequence[Tensor]) -> Tensor:
    """Return the same norm, in another order of addition: block by block.

    The norm is on the device of the first gradient, in the widest of their real dtypes.

    Example:
        >>> block_norm([torch.tensor([3.0]), torch.tensor([[4.0]])])
        tensor(5.)
    """
    device = grads[0].device
    sums = sums_of_blocks(grads, [block_size(grad.shape) for grad in grads])
    return norm_of_sums((one.to(device) for one in sums), norm_dtype(grads))


def block_size(shape: Sequence[int]) -> int:
    """Return how many elements a block of a leaf has: whole rows, and a multiple of the alignment.

    Example:
        >>> block_size([10, 128]), block_size([10, 3]), block_size([10]), block_size([])
        (128, 192, 64, 64)
    """
    return math.lcm(ALIGNMENT, max(1, math.prod(shape[1:])))


def norm_of_sums(sums: Iterable[Tensor], dtype: torch.dtype) -> Tensor:
    """Return the norm of all leaves from the sums of their blocks."""
    return _sums(torch.cat(list(sums)).unsqueeze(0))[0].sqrt().to(dtype)


def norm_dtype(grads: Iterable[Tensor]) -> torch.dtype:
    """Return the dtype of the norm of gradients."""
    return functools.reduce(torch.promote_types, (grad.dtype.to_real() for grad in grads))


def sums_of_blocks(pieces: Sequence[Tensor], blocks: Sequence[int]) -> list[Tensor]:
    """Return the sums of squares of the blocks of several leaves, in float64.

    Each piece is rows of a leaf that begin with a block; the last block may be shorter. Small ones
    are computed together: calls would take longer than the arithmetic.
    """
    groups: dict[tuple[torch.device, int, int], list[int]] = {}
    seen = 0
    for at, (piece, block) in enumerate(zip(pieces, blocks, strict=True)):
        seen += piece.numel()  # some of them at a time, which bounds the memory
        width = block * 2 if piece.is_complex() else block
        groups.setdefault((piece.device, width, seen // _TOGETHER), []).append(at)
    found: dict[int, Tensor] = {}
    for (_, width, _), places in groups.items():
        padded = [_padded(_reals(pieces[at]), width) for at in places]
        together = padded[0] if len(padded) == 1 else torch.cat(padded)
        squares = together.double().square()
        counts = [one.numel() // width for one in padded]
        sums = torch.split(_sums(squares.view(sum(counts), width)), counts)
        found.update(zip(places, sums, strict=True))
    return [found[at] for at in range(len(pieces))]


def _sums(rows: Tensor) -> Tensor:
    """Sum each row, 64 numbers at a time: torch adds up so few alike, however many rows there are.

    It may divide a longer sum among threads where there is only one.
    """
    while rows.shape[-1] > 1:
        padded = _padded(rows, ALIGNMENT)
        rows = padded.view(*padded.shape[:-1], padded.shape[-1] // ALIGNMENT, ALIGNMENT).sum(-1)
    return rows.squeeze(-1)


def _reals(leaf: Tensor) -> Tensor:
    real = torch.view_as_real(leaf) if leaf.is_complex() else leaf
    return real.detach().reshape(-1)


def _padded(values: Tensor, width: int) -> Tensor:
    missing = -values.shape[-1] % width
    return torch.nn.functional.pad(values, (0, missing)) if missing else values
