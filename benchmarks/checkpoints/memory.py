"""Memory and page cache in the same state before every measurement."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
from pathlib import Path

from torch import Tensor

_LIBC = ctypes.CDLL(None)
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def fix_allocator() -> None:
    """Make glibc map large blocks afresh each time; by default it learns to keep them.

    Otherwise the second contender would load into memory that the first one has touched.
    """
    if hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(_MMAP_THRESHOLD, 128 << 10)


def release() -> None:
    """Collect garbage, and return free memory to the system."""
    gc.collect()
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)


def fresh(size: int) -> mmap.mmap:
    """Return untouched memory, whose pages are allocated when they are written."""
    return mmap.mmap(-1, size, flags=_PRIVATE)


def copy_into(memory: mmap.mmap, tensors: dict[str, Tensor]) -> mmap.mmap:
    """Copy the bytes of all tensors by memcpy, one tensor after another."""
    at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for tensor in tensors.values():
        ctypes.memmove(at, tensor.data_ptr(), tensor.nbytes)
        at += tensor.nbytes
    return memory


def warm(place: Path) -> None:
    """Read all files into the page cache."""
    os.sync()
    for path in _files(place):
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass


def chill(place: Path, drop_caches: bool) -> None:
    """Drop the files from the page cache; drop everything if asked and allowed."""
    os.sync()
    for path in _files(place):
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if drop_caches:
        with contextlib.suppress(OSError):
            Path("/proc/sys/vm/drop_caches").write_text("3")


def _files(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.is_file()]
