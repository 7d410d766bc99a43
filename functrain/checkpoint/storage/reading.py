"""Read tensors from files, directly into their memory, verifying every byte.

Several threads read the chunks of large leaves.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import attrs
import torch
from torch import Tensor
from xxhash import xxh3_128, xxh3_128_hexdigest

from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.checkpoint.format.records import CHUNK, File, Leaf
from functrain.checkpoint.format.tensor_bytes import empty, memory, with_stride
from functrain.checkpoint.storage.files import opened, read_into
from functrain.checkpoint.storage.writing import BLOCK, slices
from functrain.errors import CheckpointCorruptError

_MOST_THREADS = 8


@attrs.frozen(eq=False)
class Part:
    """Consecutive bytes of a leaf, and the memory to read them into."""

    leaf: Leaf
    first: int
    target: memoryview


class _Chunk(NamedTuple):
    """A range of a file with its hash."""

    start: int
    end: int
    expected: str


def read(
    path: Path,
    files: Iterable[File],
    leaves: Sequence[Leaf],
    devices: Mapping[int, torch.device],
    *,
    wanted: Iterable[int] | None = None,
    verify: bool = True,
) -> dict[int, Tensor]:
    """Read tensors of a checkpoint.

    Aliases are the same object; a tensor without an entry in ``devices`` stays on the CPU.
    """
    indices = range(len(leaves)) if wanted is None else wanted
    owners = {index: _owner(leaves, index) for index in indices}
    tensors = {
        owner: empty(leaves[owner].shape, BY_NAME[leaves[owner].dtype]) for owner in owners.values()
    }
    parts = [Part(leaves[owner], 0, memory(tensor)) for owner, tensor in tensors.items()]
    read_parts(path, files, parts, verify=verify)
    for index, tensor in tensors.items():
        tensors[index] = _on_device(tensor, leaves[index], devices.get(index))
    return {index: tensors[owner] for index, owner in owners.items()}


def read_parts(
    path: Path, files: Iterable[File], parts: Iterable[Part], *, verify: bool = True
) -> None:
    """Read bytes of leaves; to verify them, read the whole chunks that hold them."""
    in_order = sorted(parts, key=lambda part: (part.leaf.file, part.leaf.offset))
    used = {part.leaf.file for part in in_order}
    with contextlib.ExitStack() as stack:
        descriptors = {
            file.name: stack.enter_context(open_payload(path / file.name, file))
            for file in files
            if file.name in used
        }
        pool = stack.enter_context(ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)))
        waiting = []
        for part in in_order:
            file = part.leaf.file
            for chunk in _chunks(part.leaf):
                job = descriptors[file], path / file, part, chunk, verify
                if len(part.target) < BLOCK:
                    _read_chunk(*job)
                else:
                    waiting.append(pool.submit(_read_chunk, *job))
        for future in waiting:
            future.result()


def verify(path: Path, files: Iterable[File], leaves: Sequence[Leaf]) -> None:
    """Read all bytes of a checkpoint and compare them with their saved hashes."""
    scratch = memoryview(bytearray(BLOCK))
    for file in files:
        own = [leaf for leaf in leaves if leaf.file == file.name and leaf.alias_of is None]
        with open_payload(path / file.name, file) as descriptor:
            for leaf in own:
                for chunk in _chunks(leaf):
                    starts = range(chunk.start, chunk.end, BLOCK)
                    parts = (scratch[: chunk.end - start] for start in starts)
                    if _read_and_hash(descriptor, chunk.start, parts) != chunk.expected:
                        raise _damage(path / file.name, leaf, chunk)


@contextlib.contextmanager
def open_payload(path: Path, file: File) -> Iterator[int]:
    """Open a payload file and check its length and header."""
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


def _owner(leaves: Sequence[Leaf], index: int) -> int:
    tie = leaves[index].alias_of
    return index if tie is None else tie


def _chunks(leaf: Leaf) -> Iterator[_Chunk]:
    last = leaf.offset + leaf.length
    for number, expected in enumerate(leaf.hashes):
        start = leaf.offset + number * CHUNK
        yield _Chunk(start, min(start + CHUNK, last), expected)


def _read_chunk(descriptor: int, path: Path, part: Part, chunk: _Chunk, check: bool) -> None:
    """Read the bytes of a part that are in a chunk of its leaf."""
    begin = part.leaf.offset + part.first
    first, last = max(chunk.start, begin), min(chunk.end, begin + len(part.target))
    if first >= last:
        return
    own = part.target[first - begin : last - begin]
    if not check:
        read_into(descriptor, own, first)
        return
    length = chunk.end - chunk.start
    data = own if len(own) == length else memoryview(bytearray(length))
    if _read_and_hash(descriptor, chunk.start, slices(data, BLOCK)) != chunk.expected:
        raise _damage(path, part.leaf, chunk)
    if data is not own:
        own[:] = data[first - chunk.start : last - chunk.start]


def _read_and_hash(descriptor: int, offset: int, parts: Iterable[memoryview]) -> str:
    """Read parts one after the other, hashing each while it is in the CPU cache."""
    digest = xxh3_128()
    for part in parts:
        count = read_into(descriptor, part, offset)
        digest.update(part[:count])
        offset += count
    return digest.hexdigest()


def _damage(path: Path, leaf: Leaf, chunk: _Chunk) -> CheckpointCorruptError:
    return CheckpointCorruptError(
        f"{path}: the bytes of {leaf.path} are not those saved (bytes {chunk.start} to {chunk.end} "
        "of the file)"
    )


def _on_device(tensor: Tensor, leaf: Leaf, device: torch.device | None) -> Tensor:
    laid = tensor if leaf.stride is None else with_stride(tensor, leaf.stride)
    return laid if device is None else laid.to(device)
