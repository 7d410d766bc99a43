"""Tensors to files: safetensors files written by ourselves, every byte hashed on its way.

The safetensors library reads these files; its own writer does not sync, hides its bytes from
hashing, and stores conjugate views wrongly.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor
from xxhash import xxh3_128

from functrain.checkpoint.format.layout import Layout
from functrain.checkpoint.format.records import CHUNK, File
from functrain.checkpoint.format.tensor_bytes import on_host
from functrain.checkpoint.storage.block_writer import PIECE, BlockWriter
from functrain.tree import Path as TreePath

Hashes = dict[int, tuple[str, ...]]


def write(
    directory: Path, plan: list[Layout], tensors: list[tuple[TreePath, Tensor]]
) -> tuple[tuple[File, ...], Hashes]:
    """Write the payload files, durably.

    Args:
        directory: where.
        plan: what goes to which file.
        tensors: all tensors with their paths.

    Returns:
        (records of the files, hashes of the tensors by index).

    Raises:
        OSError: the disk is full, or worse.
    """
    files, found = [], {}
    with BlockWriter() as writer:
        for layout in plan:
            writer.begin(directory / layout.name, layout.length)
            length = len(layout.header)
            header = ctypes.create_string_buffer(layout.header, length)
            digest = writer.write(ctypes.addressof(header), length)
            files.append(File(layout.name, layout.length, length, digest))
            for index in layout.indices:
                held = on_host(tensors[index][1])  # its address does not keep it alive
                found[index] = in_chunks(writer.write, held.data_ptr(), held.nbytes)
    return tuple(files), found


def hashes(tensor: Tensor) -> tuple[str, ...]:
    """The hashes that :func:`write` gives of a tensor, without writing it."""
    held = on_host(tensor)  # its address does not keep it alive
    return in_chunks(_hash, held.data_ptr(), held.nbytes)


def in_chunks(take: Callable[[int, int], str], address: int, length: int) -> tuple[str, ...]:
    """What ``take`` gives of each 64 MiB of memory: its hash, be it written on the way or not."""
    if 0 < length <= CHUNK:
        return (take(address, length),)
    starts = range(0, length, CHUNK)
    return tuple(take(address + at, min(CHUNK, length - at)) for at in starts)


def _hash(address: int, length: int) -> str:
    digest = xxh3_128()
    whole = memoryview((ctypes.c_char * length).from_address(address)).cast("B")
    for part in slices(whole, PIECE):  # so that other threads get their turn
        digest.update(part)
    return digest.hexdigest()


def slices(data: memoryview, size: int) -> Iterator[memoryview]:
    """Consecutive parts of at most ``size`` bytes."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
