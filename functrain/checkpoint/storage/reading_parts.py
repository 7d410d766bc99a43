"""Read parts of leaves into given memory, verifying the chunks that hold them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from functrain.checkpoint.format.records import File, Leaf
from functrain.checkpoint.storage.block_writer import PIECE
from functrain.checkpoint.storage.files import read_into
from functrain.checkpoint.storage.reading import chunks, damage, opened_payload, read_and_hash
from functrain.checkpoint.storage.writing import slices


@attrs.frozen(eq=False)
class Part:
    """Consecutive bytes of a leaf, and the memory to read them into."""

    leaf: Leaf
    first: int
    target: memoryview


def read_parts(
    path: Path, files: Iterable[File], parts: Sequence[Part], *, verify: bool = True
) -> None:
    """Read bytes of leaves, one leaf after another; of a leaf with one chunk of further memory.

    Raises:
        CheckpointCorruptError: bytes differ; the message names file and leaf.
    """
    used = {part.leaf.file for part in parts}
    with contextlib.ExitStack() as stack:
        opened = {
            file.name: stack.enter_context(opened_payload(path / file.name, file))
            for file in files
            if file.name in used
        }
        for part in parts:
            _read_part(opened[part.leaf.file], path / part.leaf.file, part, verify)


def _read_part(descriptor: int, path: Path, part: Part, check: bool) -> None:
    begin = part.leaf.offset + part.first
    if not check:
        read_into(descriptor, part.target, begin)
        return
    for leaf, (start, stop), expected in chunks(part.leaf):
        first, last = max(start, begin), min(stop, begin + len(part.target))
        if first >= last:
            continue
        own = part.target[first - begin : last - begin]
        data = own if (first, last) == (start, stop) else memoryview(bytearray(stop - start))
        if read_and_hash(descriptor, start, slices(data, PIECE)) != expected:
            raise damage(path, leaf, start, stop)
        if data is not own:
            own[:] = data[first - start : last - start]
