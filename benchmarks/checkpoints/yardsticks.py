"""Baselines without a checkpoint: the same bytes copied, and written to one file."""

from __future__ import annotations

import mmap
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.checkpoints.contenders import Contender, Load, Tensors, at_once
from benchmarks.checkpoints.memory import copy_into, fresh

DD = "buffered write + fsync (dd)"
MEMCPY = "memcpy into fresh memory"
_PAGE = 4096


def yardsticks(tensors: Tensors) -> list[Contender]:
    """Return baselines for these tensors; they hold a second copy and room for a third."""
    size = sum(tensor.nbytes for tensor in tensors.values())
    source = copy_into(fresh(-(-size // _PAGE) * _PAGE), tensors)
    room = copy_into(fresh(size), tensors)
    loads: dict[str, Load] = {
        MEMCPY: partial(_copy, size),
        "memcpy into memory used before": partial(_copy_again, room),
        "torch.empty, copy_ for each leaf": _copy_leaves,
    }
    direct = partial(_write, source, None, os.O_DIRECT)
    return [
        Contender(DD, at_once(partial(_write, source, size, 0)), True),
        Contender("O_DIRECT write + fsync", at_once(direct), True),
        Contender("memcpy", loads=loads),
    ]


def _write(source: mmap.mmap, size: int | None, flags: int, place: Path, tensors: Tensors) -> None:
    """Write like ``dd conv=fsync``: 1 MiB blocks, or 16 MiB preallocated with direct I/O."""
    data = memoryview(source)[:size]
    block = 16 << 20 if flags else 1 << 20
    descriptor = os.open(place / "bytes", os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags)
    if flags:
        os.posix_fallocate(descriptor, 0, len(data))
    for start in range(0, len(data), block):
        part = data[start : start + block]
        while part:
            part = part[os.write(descriptor, part) :]
    os.fsync(descriptor)
    os.close(descriptor)


def _copy(size: int, place: Path, tensors: Tensors) -> Any:
    return copy_into(fresh(size), tensors)


def _copy_again(room: mmap.mmap, place: Path, tensors: Tensors) -> Any:
    return copy_into(room, tensors)


def _copy_leaves(place: Path, tensors: Tensors) -> Any:
    return {name: torch.empty_like(tensor).copy_(tensor) for name, tensor in tensors.items()}
