"""Tensors to files and back: safetensors files written by ourselves, every byte hashed.

The safetensors library reads these files; its own writer does not sync, hides its bytes from
hashing, and stores conjugate views wrongly.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from xxhash import xxh3_128, xxh3_128_hexdigest

from functrain.checkpoint.dtypes import BY_NAME
from functrain.checkpoint.files import created, opened, read_into, write_all
from functrain.checkpoint.layout import Layout
from functrain.checkpoint.manifest import CHUNK, File, Leaf
from functrain.checkpoint.memory import empty, memory, on_host, with_stride
from functrain.errors import CheckpointCorruptError

# Small enough that what was hashed is still in the processor's cache when it is copied.
_PIECE = 1 << 20


def write(directory: Path, layout: Layout) -> tuple[File, dict[int, tuple[str, ...]]]:
    """Write one payload file, durably.

    Args:
        directory: where.
        layout: what.

    Returns:
        (the file's record, hashes of its tensors by index).

    Raises:
        OSError: the disk is full, or worse.
    """
    hashes: dict[int, tuple[str, ...]] = {}
    with created(directory / layout.name) as descriptor:
        write_all(descriptor, layout.header)
        for part in layout.parts:
            held = on_host(part.tensor)
            hashes[part.index] = tuple(_write_hashed(descriptor, memory(held)))
    header_hash = xxh3_128_hexdigest(layout.header)
    return File(layout.name, layout.length, len(layout.header), header_hash), hashes


def _write_hashed(descriptor: int, data: memoryview) -> Iterator[str]:
    for chunk in _slices(data, CHUNK):
        digest = xxh3_128()
        for piece in _slices(chunk, _PIECE):
            digest.update(piece)
            write_all(descriptor, piece)
        yield digest.hexdigest()


def read(
    path: Path,
    files: Iterable[File],
    leaves: tuple[Leaf, ...],
    devices: Mapping[int, torch.device],
) -> list[Tensor]:
    """Read and verify all tensors of a checkpoint.

    Args:
        path: the checkpoint's directory.
        files: its payload files.
        leaves: its tensors.
        devices: where a tensor goes, by index; others stay on the CPU.

    Returns:
        The tensors in the order of ``leaves``; aliases are the same object.

    Raises:
        CheckpointCorruptError: names file and leaf.
    """
    tensors: dict[int, Tensor] = {}
    for file in files:
        place = path / file.name
        with _verified(place, file) as descriptor:
            for index, leaf in enumerate(leaves):
                if leaf.file == file.name and leaf.alias_of is None:
                    tensor = _read_leaf(descriptor, place, leaf)
                    tensors[index] = tensor.to(devices.get(index, "cpu"))
    return [tensors[i if leaf.alias_of is None else leaf.alias_of] for i, leaf in enumerate(leaves)]


def verify(path: Path, files: Iterable[File], leaves: tuple[Leaf, ...]) -> None:
    """Read all bytes of a checkpoint, and keep none.

    Raises:
        CheckpointCorruptError: names file and leaf.
    """
    for file in files:
        place = path / file.name
        with _verified(place, file) as descriptor:
            for leaf in leaves:
                if leaf.file == file.name and leaf.alias_of is None:
                    _read_leaf(descriptor, place, leaf)


@contextlib.contextmanager
def _verified(path: Path, file: File) -> Iterator[int]:
    """The descriptor of a payload file whose length and header are as they were saved."""
    try:
        with opened(path) as descriptor:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointCorruptError(f"{path} is not a regular file")
            if status.st_size != file.length:
                raise CheckpointCorruptError(
                    f"{path} has {status.st_size} bytes, but {file.length} were saved"
                )
            header = bytearray(file.header_length)
            read_into(descriptor, memoryview(header), 0)
            if xxh3_128_hexdigest(header) != file.header_hash:
                raise CheckpointCorruptError(f"{path}: the header's bytes are not those saved")
            yield descriptor
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EIO):
            raise
        reason = "is missing" if error.errno == errno.ENOENT else f"cannot be read: {error}"
        raise CheckpointCorruptError(f"{path} {reason}") from error


def _read_leaf(descriptor: int, path: Path, leaf: Leaf) -> Tensor:
    tensor = empty(leaf.shape, BY_NAME[leaf.dtype])
    data, offset = memory(tensor), leaf.offset
    for number, (chunk, expected) in enumerate(zip(_slices(data, CHUNK), leaf.hashes, strict=True)):
        digest = xxh3_128()
        for piece in _slices(chunk, _PIECE):
            read_into(descriptor, piece, offset)
            digest.update(piece)
            offset += len(piece)
        if digest.hexdigest() != expected:
            first = leaf.offset + number * CHUNK
            raise CheckpointCorruptError(
                f"{path}: the bytes of {leaf.path} are not those saved "
                f"(bytes {first} to {first + len(chunk)} of the file)"
            )
    return tensor if leaf.stride is None else with_stride(tensor, leaf.stride)


def _slices(data: memoryview, size: int) -> Iterator[memoryview]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
