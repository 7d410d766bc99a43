"""Tensors to files: safetensors files written by ourselves, every byte hashed on its way.

The safetensors library reads these files; its own writer does not sync, hides its bytes from
hashing, and stores conjugate views wrongly.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from functrain.checkpoint.format.layout import Layout
from functrain.checkpoint.format.memory import on_host
from functrain.checkpoint.format.records import CHUNK, File
from functrain.checkpoint.storage.blocks import BlockWriter
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
    files, hashes = [], {}
    with BlockWriter() as writer:
        for layout in plan:
            writer.begin(directory / layout.name, layout.length)
            length = len(layout.header)
            header = ctypes.create_string_buffer(layout.header, length)
            digest = writer.write(ctypes.addressof(header), length)
            files.append(File(layout.name, layout.length, length, digest))
            for index in layout.indices:
                held = on_host(tensors[index][1])  # its address does not keep it alive
                hashes[index] = write_chunks(writer, held.data_ptr(), held.nbytes)
    return tuple(files), hashes


def write_chunks(writer: BlockWriter, address: int, length: int) -> tuple[str, ...]:
    """Append memory to a file, and give the hash of each 64 MiB of it."""
    if 0 < length <= CHUNK:
        return (writer.write(address, length),)
    starts = range(0, length, CHUNK)
    return tuple(writer.write(address + at, min(CHUNK, length - at)) for at in starts)


def slices(data: memoryview, size: int) -> Iterator[memoryview]:
    """Consecutive parts of at most ``size`` bytes."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
