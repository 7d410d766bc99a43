"""Memory of a step: the peak of the process, and all allocations during the step."""

from __future__ import annotations

import contextlib
import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch

# Return freed tensors to the system. Otherwise memory freed by earlier steps stays resident and
# hides the needs of a later one. This costs time, so nothing is timed with it.
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def synchronizing(device: str) -> Callable[[], None]:
    """Return a function that waits for a device; on the CPU there is nothing to wait for."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None


def peak(device: str) -> Callable[[], float]:
    """Begin to measure; the result returns the highest number of bytes since.

    On the CPU, with ``RETURNING`` in the environment, they are what the resident memory grew by
    above what it was before the steps, and the tensors that were alive then. Code and Python
    objects of a framework do not count, and a tensor counts alike whether it was made before the
    first step or in it.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return lambda: float(torch.cuda.max_memory_allocated())
    alive, before = live_tensors(), resident()
    forget_peak()
    return lambda: float(max(highest() - before, 0) + alive)


def resident() -> int:
    """Return the resident bytes of this process."""
    return _status("VmRSS")


def highest() -> int:
    """Return the most resident bytes since the peak was forgotten."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Let the high-water mark begin again at the present memory."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def live_tensors() -> int:
    """Return the bytes of all live tensors and JAX arrays; shared memory counts once."""
    sizes: dict[int, int] = {}
    for item in gc.get_objects():
        if type(item) in (
            torch.Tensor,
            torch.nn.Parameter,
        ):  # no fake tensors of the compiler
            for tensor in (item, item.grad if item.is_leaf else None):
                with contextlib.suppress(RuntimeError, NotImplementedError):  # has no memory
                    if tensor is not None and tensor.device.type == "cpu":
                        storage = tensor.untyped_storage()
                        sizes[storage.data_ptr()] = storage.nbytes()
    jax = sys.modules.get("jax")
    arrays = jax.live_arrays() if jax is not None else ()
    return sum(sizes.values()) + sum(array.nbytes for array in arrays)


def allocated() -> Callable[[], float]:
    """Begin to count; the result returns the bytes that torch allocated since, freed or not."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    profile = torch.profiler.profile(activities=activities, profile_memory=True)
    profile.__enter__()

    def end() -> float:
        profile.__exit__(None, None, None)
        events = profile.profiler.kineto_results.events()
        sizes = (event.nbytes() for event in events if event.name() == "[memory]")
        return float(sum(size for size in sizes if size > 0))

    return end
