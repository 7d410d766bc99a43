"""Write tensors to safetensors files in large blocks, hashing every byte on its way.

The safetensors library can read these files. Its own writer is not used because it does not sync,
cannot hash what it writes, and stores conjugate views incorrectly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from torch import Tensor
from xxhash import xxh3_128

from functrain.checkpoint.format.layout import Layout
from functrain.checkpoint.format.records import CHUNK, File
from functrain.checkpoint.format.tensor_bytes import memory, on_host
from functrain.checkpoint.storage.files import created, preallocate, write_all

# Small enough to be still in the CPU cache when it is hashed and written after copying.
BLOCK = 1 << 20
Hashes = dict[int, tuple[str, ...]]
# The bytes of a tensor by its index: 64 MiB at a time, each in parts.
Chunks = Callable[[int], Iterable[Iterable[memoryview]]]


def write(directory: Path, plan: list[Layout], chunks: Chunks) -> tuple[tuple[File, ...], Hashes]:
    """Write the payload files, durably; return their records, and the hashes by tensor."""
    files, found = [], {}
    for layout in plan:
        with create_in_blocks(directory / layout.name, layout.length) as append:
            digest = append([memoryview(layout.header)])
            for index in layout.indices:
                found[index] = tuple(map(append, chunks(index)))
        files.append(File(layout.name, layout.length, len(layout.header), digest))
    return tuple(files), found


@contextlib.contextmanager
def create_in_blocks(path: Path, length: int) -> Iterator[Callable[[Iterable[memoryview]], str]]:
    """Create a file that is durable when the ``with`` block ends without error.

    Yields a function that appends parts and returns the hash of them all: that of the bytes
    written, even if the memory changes meanwhile.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "file"
        >>> with create_in_blocks(place, length=3) as append:
        ...     _ = append([memoryview(b"ab"), memoryview(b"c")])
        >>> place.read_bytes()
        b'abc'
    """
    block, filled, written = memoryview(bytearray(BLOCK)), 0, 0

    def append(parts: Iterable[memoryview]) -> str:
        nonlocal filled, written
        digest = xxh3_128()
        for left in parts:
            while left:
                copy = block[filled : filled + len(left)]
                copy[:] = left[: len(copy)]
                digest.update(copy)  # not of the source: only the copy is what reaches the disk
                filled, left = filled + len(copy), left[len(copy) :]
                if filled == BLOCK:
                    write_all(descriptor, block, written)
                    filled, written = 0, written + BLOCK
        return digest.hexdigest()

    with created(path) as descriptor:
        preallocate(descriptor, length)
        yield append
        write_all(descriptor, block[:filled], written)


def one_by_one(tensor: Tensor) -> Iterator[Iterator[memoryview]]:
    """Yield the bytes of a tensor, 64 MiB at a time."""
    return map(iter, ([chunk] for chunk in slices(memory(on_host(tensor)), CHUNK)))


def hash_chunks(chunks: Iterable[Iterable[memoryview]]) -> tuple[str, ...]:
    """Return the hash of each chunk, as :func:`write` does."""
    return tuple(map(_hash, chunks))


def _hash(parts: Iterable[memoryview]) -> str:
    digest = xxh3_128()
    for part in parts:
        for piece in slices(part, BLOCK):  # in pieces, so that other threads can run
            digest.update(piece)
    return digest.hexdigest()


def slices(data: memoryview, size: int) -> Iterator[memoryview]:
    """Yield consecutive slices of at most ``size`` bytes."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
