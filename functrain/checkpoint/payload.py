"""Tensors to files: safetensors files written by ourselves, every byte hashed on its way.

The safetensors library reads these files; its own writer does not sync, hides its bytes from
hashing, and stores conjugate views wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor
from xxhash import xxh3_128

from functrain.checkpoint.blocks import BlockWriter
from functrain.checkpoint.layout import Layout
from functrain.checkpoint.memory import memory, on_host
from functrain.checkpoint.records import CHUNK, File
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
            header = _hashed(writer, memoryview(layout.header))
            files.append(File(layout.name, layout.length, len(layout.header), header))
            for index in layout.indices:
                held = on_host(tensors[index][1])  # its memory view does not keep it alive
                chunks = slices(memory(held), CHUNK)
                hashes[index] = tuple(_hashed(writer, chunk) for chunk in chunks)
    return tuple(files), hashes


def slices(data: memoryview, size: int) -> Iterator[memoryview]:
    """Consecutive parts of at most ``size`` bytes."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def _hashed(writer: BlockWriter, data: memoryview) -> str:
    digest = xxh3_128()
    writer.write(data, digest)
    return digest.hexdigest()
