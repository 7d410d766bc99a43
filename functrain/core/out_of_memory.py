"""Running out of memory, told with what the step was given."""

from __future__ import annotations

import torch
from torch import Tensor

from functrain import tree
from functrain.core.batch import Batch
from functrain.tree.display import summary, totals


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on the host or on a device.

    Example:
        >>> try:
        ...     torch.empty(2**60)
        ... except RuntimeError as error:
        ...     is_out_of_memory(error)
        True
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The allocator of the CPU has no class of error to itself.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: " in str(error)


def told(error: BaseException, step: int, parts: list[Batch]) -> None:
    """Add to an error of this kind what the step was given, and what would need less.

    Args:
        error: any; others are left alone.
        step: updates done before.
        parts: the micro-batches.
    """
    if not is_out_of_memory(error):
        return
    leaves = [
        f"{tree.path_string(path) or 'batch'}: {summary(leaf)}"
        for path, leaf in tree.items(parts[0])
        if isinstance(leaf, Tensor)
    ]
    cut = f", the first of {len(parts)} micro-batches" if len(parts) > 1 else ""
    error.add_note(
        f"memory ran out in the step after step {step}, with the batch {{{', '.join(leaves)}}} "
        f"({totals(parts[0])}{cut}). Smaller batches, a greater accumulate=, precision='bf16' or "
        "activation checkpointing need less; functrain.donated needs no second copy of the state."
    )
