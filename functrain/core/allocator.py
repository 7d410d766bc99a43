"""Keep freed CPU memory in the allocator between steps."""

from __future__ import annotations

import contextlib

import torch

# glibc does not go beyond 32 MiB; some of it is the block's own header and alignment.
_LARGEST = (32 << 20) - (64 << 10)


def keep_freed_memory() -> None:
    """Have the C library keep what a step frees, for the next step to use.

    By default glibc hands freed memory back to the system, or not, by where in the heap it
    happens to lie, and then takes it again page by page in the next step: thousands of page
    faults, up to a fifth of a step, in some processes and not in others. It keeps at least twice
    the size of the largest block that it mapped by itself and that was freed, up to 64 MiB
    (``mallopt(3)``, ``M_MMAP_THRESHOLD``). So the largest such block is taken and freed, which
    touches none of its pages. Where ``MALLOC_TRIM_THRESHOLD_`` or ``MALLOC_MMAP_THRESHOLD_`` is in
    the environment, or with another C library, nothing changes.

    Example:
        >>> keep_freed_memory()
    """
    # A storage, since new tensors are filled where algorithms are to be deterministic. Where
    # there is no room for it, there is nothing to keep either.
    with contextlib.suppress(RuntimeError):
        torch.UntypedStorage(_LARGEST, device="cpu")  # type: ignore[no-untyped-call]
