"""Helpers of kernels made of ``torch._foreach_*`` operations.

On the CPU such an operation is a loop over the tensors, and a chain of them over all leaves
reads everything from main memory again at every link. `blocks` runs the whole chain on a piece
that stays in the cache. On accelerators one launch for all leaves is what counts.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from functrain.optim.hyperparameters import is_zero
from functrain.optim.leaf_rule import Leaves, Rate

Several = Leaves | tuple[Tensor, ...]

_BLOCK_BYTES = 2**22
"""Bytes of a block of each list: a kernel with six arrays fits a cache of 32 MB."""

_THREAD_ELEMENTS = 2**15
"""The fewest elements that torch gives to a thread."""


def blocks(*lists: Leaves) -> Iterator[tuple[Leaves, ...]]:
    """Cut lists of leaves that lie alike in memory into pieces that fit the CPU's cache.

    Small leaves are grouped, large ones are cut. On an accelerator the lists stay whole.
    A kernel deletes its temporary lists at the end of a block, because the lists of two blocks
    would need twice the cache.

    The lists are parameters, gradients and slots, in any order; those of one leaf have the same
    dtype, shape and strides. Parts of a leaf are flat and share its memory.

    Example:
        >>> large, small = torch.zeros(2**21), torch.zeros(3, 2)
        >>> for (piece,) in blocks([large, small, small]):
        ...     print([tuple(part.shape) for part in piece])
        [(1048576,)]
        [(1048576,)]
        [(3, 2), (3, 2)]
    """
    first = lists[0][0]
    if not first.is_cpu:
        yield lists
        return
    limit = max(_BLOCK_BYTES // first.itemsize, _THREAD_ELEMENTS * torch.get_num_threads())
    gathered: list[tuple[Tensor, ...]] = []
    size = 0
    for leaves in zip(*lists, strict=True):
        count = leaves[0].numel()
        if gathered and size + count > limit:
            yield _transposed(gathered)
            gathered, size = [], 0
        if count > limit:
            yield from _cut(leaves, limit)
        else:
            gathered.append(leaves)
            size += count
    if gathered:
        yield _transposed(gathered)


def _transposed(leaves: list[tuple[Tensor, ...]]) -> tuple[Leaves, ...]:
    return tuple(map(list, zip(*leaves, strict=True)))


def _cut(leaves: tuple[Tensor, ...], limit: int) -> Iterator[tuple[Leaves, ...]]:
    if leaves[0].is_contiguous():
        flat = [leaf.view(-1) for leaf in leaves]
    else:  # dense in some other order, the same for all
        flat = [leaf.as_strided((leaf.numel(),), (1,)) for leaf in leaves]
    for pieces in zip(*(torch.split(leaf, limit) for leaf in flat), strict=True):
        yield tuple([piece] for piece in pieces)


def constant(value: Rate, params: Leaves) -> Rate:
    """Return a factor in the form that is fastest for ``torch._foreach_*`` with these parameters.

    That is a float on the CPU. On an accelerator a tensor stays one, because its value would
    have to be waited for; it takes the parameters' dtype, without which torch would launch a
    kernel for every leaf, unless that dtype is too narrow for it.

    Example:
        >>> constant(torch.tensor(2.0), [torch.zeros(3)])
        2.0
    """
    if not isinstance(value, Tensor):
        return value
    if params[0].is_cpu:
        return value.item()
    wide = params[0].dtype in (torch.float32, torch.float64)
    return value.to(params[0].device, params[0].dtype if wide else value.dtype)


def directed(grads: Leaves, params: Leaves, weight_decay: Rate, maximize: bool) -> Leaves:
    """Return the gradients to descend along, with the L2 penalty; the given ones stay the same."""
    if maximize:
        grads = list(torch._foreach_neg(grads))
    if is_zero(weight_decay):
        return grads
    if isinstance(weight_decay, Tensor):
        penalty = torch._foreach_mul(params, weight_decay)
        torch._foreach_add_(penalty, grads)
        return list(penalty)
    return list(torch._foreach_add(grads, params, alpha=weight_decay))


def update_moments_(
    exp_avgs: Leaves, exp_avg_sqs: Leaves, grads: Leaves, betas: tuple[Rate, Rate]
) -> None:
    """Move the running means of the gradients and of their squares."""
    beta1, beta2 = betas
    torch._foreach_lerp_(exp_avgs, grads, 1 - beta1)  # type: ignore[arg-type]
    torch._foreach_mul_(exp_avg_sqs, beta2)
    torch._foreach_addcmul_(exp_avg_sqs, grads, grads, 1 - beta2)


def add_constant_(targets: Several, value: Rate) -> None:
    """Add a number to every element of the targets."""
    if isinstance(value, Tensor):
        # Without alpha torch takes the tensor for a number and waits for its value.
        torch._foreach_add_(targets, value, alpha=1)
    else:
        torch._foreach_add_(targets, value)


def add_scaled_(targets: Several, leaves: Several, factor: Rate) -> None:
    """Add ``factor * leaves`` to the targets."""
    if isinstance(factor, Tensor):
        torch._foreach_add_(targets, torch._foreach_mul(leaves, factor))
    else:
        torch._foreach_add_(targets, leaves, alpha=factor)


def add_ratio_(targets: Several, above: Several, below: Several, factor: Rate) -> None:
    """Add ``factor * above / below`` to the targets."""
    if isinstance(factor, Tensor):
        ratio = torch._foreach_div(above, below)
        torch._foreach_mul_(ratio, factor)
        torch._foreach_add_(targets, ratio)
    else:
        torch._foreach_addcdiv_(targets, above, below, value=factor)
