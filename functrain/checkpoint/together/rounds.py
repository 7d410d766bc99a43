"""Write payload files from many ranks, whose bytes travel to their writers in rounds.

Memory is bounded: in each round every rank receives one window of the bytes that it hashes and
writes. Every message ends with a mark that says whether the sender has failed, so that after a
full disk on one rank all of them stop in the same round.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import torch
import torch.distributed as dist
from torch import Tensor
from xxhash import xxh3_128

from functrain.checkpoint.format.layout import Layout
from functrain.checkpoint.format.placed import Holding
from functrain.checkpoint.format.records import CHUNK
from functrain.checkpoint.format.tensor_bytes import byte_range
from functrain.checkpoint.storage.files import close, sync, write_all
from functrain.checkpoint.storage.writing import BLOCK, slices
from functrain.checkpoint.together.shares import HEADER, Part, Share, chunks, parts, shares

if TYPE_CHECKING:
    from functrain.distributed.group import World

ChunkHashes = dict[tuple[int, int], str]  # by index of the leaf and number of the chunk
_WINDOW = 16 << 20
_MOST_SENT = 64 << 20  # in one round, even by a rank that holds everything


@attrs.define
class Failure:
    """The first exception in the local work of this rank, until all ranks hear of it."""

    error: Exception | None = None

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Keep an exception of the block: the other ranks wait for this one's next message."""
        try:
            yield
        except Exception as error:  # not hidden: the report to all ranks has it
            self.error = self.error or error


@attrs.frozen(eq=False)
class Rounds:
    """The files that ranks write together, and the tensors that this one holds."""

    world: World
    leaves: Sequence[Holding]
    tensors: Mapping[int, Tensor]
    failure: Failure
    _opened: list[int] = attrs.field(factory=list, init=False)

    def run(self, layout: Layout, directory: Path | None) -> tuple[ChunkHashes, bool]:
        """Hash the file of a layout together, and write it unless ``directory`` is ``None``.

        Returns the hashes of this rank's chunks, and whether any rank has failed.
        """
        every, failed = shares(layout, self.world.size), False
        mine = every[self.world.rank]
        size = max(BLOCK, min(_WINDOW, _MOST_SENT // self.world.size))
        digests: dict[tuple[int, int], xxh3_128] = {}
        with self.failure.caught():
            file = None if directory is None else self._open(directory / layout.name)
            memory = memoryview(bytearray(size))
            buffer = torch.frombuffer(memory, dtype=torch.uint8)
        longest = max(share.needed[1] - share.needed[0] for share in every)
        for number in range(math.ceil(longest / size)):
            windows = [share.window(number, size) for share in every]
            received, failed = self._exchanged(layout, windows)
            if failed:
                break
            with self.failure.caught():
                window = windows[self.world.rank]
                data = memory[: window[1] - window[0]]
                self._fill(buffer, layout, window, received)
                _hash(data, layout, mine, window, digests)
                if file is not None:
                    start, end = max(window[0], mine.written[0]), min(window[1], mine.written[1])
                    write_all(file, data[start - window[0] : max(end, start) - window[0]], start)
        return {key: digest.hexdigest() for key, digest in digests.items()}, failed

    def __enter__(self) -> Rounds:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Make what this rank wrote durable, and close its files."""
        with self.failure.caught():
            for file in self._opened if kind is None and self.failure.error is None else ():
                sync(file)
        for file in self._opened:
            close(file)

    def _open(self, path: Path) -> int:
        self._opened.append(os.open(path, os.O_WRONLY | os.O_NOFOLLOW))
        return self._opened[-1]

    def _exchanged(
        self, layout: Layout, windows: list[tuple[int, int]]
    ) -> tuple[list[Tensor], bool]:
        """Send the parts of the others' windows; return the messages and whether a rank failed."""
        rank, size = self.world.rank, self.world.size
        outgoing = [
            [part for part in parts(layout, self.leaves, window, each) if part.source == rank]
            for each, window in enumerate(windows)
            if each != rank
        ]
        outgoing.insert(rank, [])
        lengths = [1 + sum(part.length for part in own) for own in outgoing]
        sent = torch.zeros(sum(lengths), dtype=torch.uint8)
        with self.failure.caught():
            for message, own in zip(torch.split(sent, lengths), outgoing, strict=True):
                at = 0
                for part in own:
                    message[at : at + part.length] = self._bytes(layout, part)
                    at += part.length
        sent[torch.tensor(lengths).cumsum(0) - 1] = self.failure.error is not None
        if size == 1:
            return [sent], bool(sent[-1])
        expected = [1] * size
        for part in parts(layout, self.leaves, windows[rank], rank):
            expected[part.source] += part.length * (part.source != rank)
        received = torch.empty(sum(expected), dtype=torch.uint8)
        with self.world.failing_together():
            dist.all_to_all_single(received, sent, expected, lengths, self.world.group)
        messages = list(torch.split(received, expected))
        return messages, any(bool(message[-1]) for message in messages)

    def _fill(
        self, target: Tensor, layout: Layout, window: tuple[int, int], received: list[Tensor]
    ) -> None:
        """Copy the parts of this rank's window into place."""
        positions = [0] * self.world.size
        for part in parts(layout, self.leaves, window, self.world.rank):
            if part.source == self.world.rank:
                data = self._bytes(layout, part)
            else:
                at = positions[part.source]
                data = received[part.source][at : at + part.length]
                positions[part.source] += part.length
            target[part.at - window[0] :][: part.length] = data

    def _bytes(self, layout: Layout, part: Part) -> Tensor:
        if part.index == HEADER:
            header = bytearray(layout.header[part.first : part.last])
            return torch.frombuffer(header, dtype=torch.uint8)
        begin = self.leaves[part.index].begin(self.world.rank)
        return byte_range(self.tensors[part.index], part.first - begin, part.last - begin)


def _hash(
    data: memoryview,
    layout: Layout,
    share: Share,
    window: tuple[int, int],
    digests: dict[tuple[int, int], xxh3_128],
) -> None:
    for part in chunks(layout, share, window):
        digest = digests.setdefault((part.index, part.first // CHUNK), xxh3_128())
        begin = part.at - window[0]
        for piece in slices(data[begin : begin + part.length], BLOCK):
            digest.update(piece)
