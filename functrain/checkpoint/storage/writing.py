"""Write tensors to safetensors files, hashing every byte on its way.

The safetensors library can read these files. Its own writer is not used because it does not sync,
cannot hash what it writes, and stores conjugate views incorrectly.
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
    """Write the payload files, durably; return their records, and the hashes by tensor."""
    files, found = [], {}
    with BlockWriter() as writer:
        for layout in plan:
            writer.begin(directory / layout.name, layout.length)
            length = len(layout.header)
            header = ctypes.create_string_buffer(layout.header, length)
            digest = writer.write(ctypes.addressof(header), length)
            files.append(File(layout.name, layout.length, length, digest))
            for index in layout.indices:
                held = on_host(
                    tensors[index][1]
                )  # hold a reference: the address does not keep it alive
                found[index] = in_chunks(writer.write, held.data_ptr(), held.nbytes)
    return tuple(files), found


def hashes(tensor: Tensor) -> tuple[str, ...]:
    """Return the hashes that :func:`write` would return for a tensor."""
    held = on_host(tensor)  # hold a reference: the address does not keep it alive
    return in_chunks(_hash, held.data_ptr(), held.nbytes)


def in_chunks(digest: Callable[[int, int], str], address: int, length: int) -> tuple[str, ...]:
    """Return the digest of each 64 MiB of memory."""
    if 0 < length <= CHUNK:
        return (digest(address, length),)
    starts = range(0, length, CHUNK)
    return tuple(digest(address + at, min(CHUNK, length - at)) for at in starts)


def _hash(address: int, length: int) -> str:
    digest = xxh3_128()
    whole = memoryview((ctypes.c_char * length).from_address(address)).cast("B")
    for part in slices(whole, PIECE):  # in pieces, so that other threads can run
        digest.update(part)
    return digest.hexdigest()


def slices(data: memoryview, size: int) -> Iterator[memoryview]:
    """Yield consecutive slices of at most ``size`` bytes."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
