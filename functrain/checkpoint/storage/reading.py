"""Read tensors from files, directly into their memory, verifying every byte.

Several threads read large leaves in chunks; one system call reads many small leaves at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import attrs
import torch
from torch import Tensor
from xxhash import xxh3_128, xxh3_128_hexdigest

from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.checkpoint.format.records import CHUNK, File, Leaf
from functrain.checkpoint.format.tensor_bytes import empty, memory, with_stride
from functrain.checkpoint.storage.block_writer import PIECE
from functrain.checkpoint.storage.files import opened, read_consecutive, read_into
from functrain.checkpoint.storage.writing import slices
from functrain.errors import CheckpointCorruptError

_MOST_THREADS = 8
_MOST_AT_ONCE = 1000  # the system limit is 1,024 targets per call


@attrs.frozen(eq=False)
class _Piece:
    """A part of a leaf and the memory to read it into."""

    leaf: Leaf
    offset: int
    target: memoryview
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
    indices = range(len(leaves)) if wanted is None else list(wanted)
    owners = [_owner(leaves, index) for index in indices]
    tensors = {index: empty(leaves[index].shape, BY_NAME[leaves[index].dtype]) for index in owners}
    used = {leaves[index].file for index in owners}
    needed = [file for file in files if wanted is None or file.name in used]
    _fill(path, needed, leaves, tensors, verify)
    for index, tensor in tensors.items():
        tensors[index] = _on_device(tensor, leaves[index], devices.get(index))
    return {index: tensors[owner] for index, owner in zip(indices, owners, strict=True)}


@attrs.frozen(eq=False)
class Part:
    """Consecutive bytes of a leaf, and the memory to read them into."""

    leaf: Leaf
    first: int
    target: memoryview


def read_parts(
    path: Path, files: Iterable[File], parts: Sequence[Part], *, verify: bool = True
) -> None:
    """Read bytes of leaves; to verify them, read the whole chunks that hold them."""
    used = {part.leaf.file for part in parts}
    with _opened_files(path, [file for file in files if file.name in used]) as descriptors:
        for part in parts:
            _read_part(descriptors[part.leaf.file], path / part.leaf.file, part, verify)


def verify(path: Path, files: Iterable[File], leaves: Sequence[Leaf]) -> None:
    """Read all bytes of a checkpoint and compare them with their saved hashes."""
    scratch = memoryview(bytearray(PIECE))
    for file in files:
        own = [leaf for leaf in leaves if leaf.file == file.name and leaf.alias_of is None]
        with opened_payload(path / file.name, file) as descriptor:
            for each, (start, end), expected in (part for leaf in own for part in _chunks(leaf)):
                parts = (scratch[: min(PIECE, end - at)] for at in range(start, end, PIECE))
                if _read_and_hash(descriptor, start, parts) != expected:
                    raise _damage(path / file.name, each, start, end)


@contextlib.contextmanager
def opened_payload(path: Path, file: File) -> Iterator[int]:
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


@contextlib.contextmanager
def _opened_files(path: Path, files: Iterable[File]) -> Iterator[dict[str, int]]:
    with contextlib.ExitStack() as stack:
        yield {
            file.name: stack.enter_context(opened_payload(path / file.name, file)) for file in files
        }


def _fill(
    path: Path,
    files: Iterable[File],
    leaves: Sequence[Leaf],
    tensors: Mapping[int, Tensor],
    check: bool,
) -> None:
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    with _opened_files(path, files) as descriptors, ThreadPoolExecutor(threads) as pool:
        waiting: list[Future[None]] = []
        for group in _groups(leaves, tensors):
            name = group[0].leaf.file
            if len(group[0].target) >= PIECE:
                waiting.append(
                    pool.submit(_read_large, descriptors[name], path / name, group, check)
                )
            else:
                _read_small(descriptors[name], path / name, group, check)
        for future in waiting:
            future.result()


def _owner(leaves: Sequence[Leaf], index: int) -> int:
    tie = leaves[index].alias_of
    return index if tie is None else tie


def _chunks(leaf: Leaf) -> Iterator[tuple[Leaf, tuple[int, int], str]]:
    """Yield the hashed parts of a leaf with their ranges in the file and their hashes."""
    last = leaf.offset + leaf.length
    for number, expected in enumerate(leaf.hashes):
        start = leaf.offset + number * CHUNK
        yield leaf, (start, min(start + CHUNK, last)), expected


def _groups(leaves: Sequence[Leaf], tensors: Mapping[int, Tensor]) -> Iterator[list[_Piece]]:
    """Group pieces that one call reads: one large piece, or adjacent small ones."""
    group: list[_Piece] = []
    end, room = 0, 0
    for index in sorted(tensors, key=lambda index: (leaves[index].file, leaves[index].offset)):
        leaf, data = leaves[index], memory(tensors[index])
        for _, (start, stop), expected in _chunks(leaf):
            target = data[start - leaf.offset : stop - leaf.offset]
            fits = group and start == end and len(target) <= room and len(group) < _MOST_AT_ONCE
            if not fits or group[0].leaf.file != leaf.file:
                if group:
                    yield group
                group, room = [], PIECE
            group.append(_Piece(leaf, start, target, expected))
            end, room = stop, room - len(target)
    if group:
        yield group


def _read_large(descriptor: int, path: Path, group: list[_Piece], check: bool) -> None:
    (piece,) = group
    found = _read_and_hash(descriptor, piece.offset, slices(piece.target, PIECE))
    if check and found != piece.expected:
        raise _damage(path, piece.leaf, piece.offset, piece.offset + len(piece.target))


def _read_and_hash(descriptor: int, offset: int, parts: Iterable[memoryview]) -> str:
    """Read parts one after the other, hashing each while it is in the CPU cache."""
    digest = xxh3_128()
    for part in parts:
        count = read_into(descriptor, part, offset)
        digest.update(part[:count])
        offset += count
    return digest.hexdigest()


def _read_small(descriptor: int, path: Path, group: list[_Piece], check: bool) -> None:
    read_consecutive(descriptor, [piece.target for piece in group], group[0].offset)
    for piece in group if check else ():
        if xxh3_128_hexdigest(piece.target) != piece.expected:
            raise _damage(path, piece.leaf, piece.offset, piece.offset + len(piece.target))


def _read_part(descriptor: int, path: Path, part: Part, check: bool) -> None:
    begin = part.leaf.offset + part.first
    if not check:
        read_into(descriptor, part.target, begin)
        return
    for leaf, (start, stop), expected in _chunks(part.leaf):
        first, last = max(start, begin), min(stop, begin + len(part.target))
        if first >= last:
            continue
        own = part.target[first - begin : last - begin]
        data = own if (first, last) == (start, stop) else memoryview(bytearray(stop - start))
        if _read_and_hash(descriptor, start, slices(data, PIECE)) != expected:
            raise _damage(path, leaf, start, stop)
        if data is not own:
            own[:] = data[first - start : last - start]


def _damage(path: Path, leaf: Leaf, start: int, end: int) -> CheckpointCorruptError:
    return CheckpointCorruptError(
        f"{path}: the bytes of {leaf.path} are not those saved (bytes {start} to {end} of the file)"
    )


def _on_device(tensor: Tensor, leaf: Leaf, device: torch.device | None) -> Tensor:
    laid = tensor if leaf.stride is None else with_stride(tensor, leaf.stride)
    return laid if device is None else laid.to(device)
