"""Share a payload file among the ranks that write it together.

Each rank hashes whole chunks of leaves, as the format requires, and writes whole aligned blocks: on
network file systems two writers of one page may overwrite each other's bytes. Where a chunk begins
inside a block, its rank receives and writes the start of that block too.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import attrs

from functrain.checkpoint.format.layout import Layout
from functrain.checkpoint.format.placed import Holding
from functrain.checkpoint.format.records import CHUNK

BLOCK = 1 << 20
HEADER = -1


@attrs.frozen
class Share:
    """The ranges of a file that one rank hashes (whole chunks) and writes (whole blocks)."""

    hashed: tuple[int, int]
    written: tuple[int, int]

    @property
    def needed(self) -> tuple[int, int]:
        """First byte and end of what the rank receives."""
        return min(self.hashed[0], self.written[0]), self.hashed[1]

    def window(self, number: int, size: int) -> tuple[int, int]:
        """Return the part that is exchanged in one round; empty after the last one."""
        first, last = self.needed
        start = min(first + number * size, last)
        return start, min(start + size, last)


@attrs.frozen
class Part:
    """Consecutive bytes of one leaf in a window, and their source.

    Attributes:
        index: of the leaf, or ``HEADER``.
        first: the first byte, from the beginning of the leaf.
        last: the end.
        at: offset of the first byte in the file.
        source: the rank that provides them.
    """

    index: int
    first: int
    last: int
    at: int
    source: int

    @property
    def length(self) -> int:
        return self.last - self.first


def shares(layout: Layout, ranks: int) -> list[Share]:
    """Share a file among ranks.

    Example:
        >>> plan = Layout("x", b"." * 64, [0, 1], [64, 64 + (3 << 20), 64 + (4 << 20)])
        >>> for share in shares(plan, 2):
        ...     print(share.hashed, share.written)
        (0, 3145792) (0, 3145728)
        (3145792, 4194368) (3145728, 4194368)
    """
    starts = [0]
    for first, last in zip(layout.offsets, layout.offsets[1:], strict=False):
        starts += range(first, last, CHUNK)
    starts.append(layout.length)
    targets = (layout.length * rank // ranks // BLOCK * BLOCK for rank in range(1, ranks))
    borders = [0, *(starts[bisect_left(starts, each)] for each in targets), layout.length]
    # The last block goes to the rank with the last chunk, even if others without chunks follow.
    edges = [each if each == layout.length else each // BLOCK * BLOCK for each in borders]
    found = zip(borders, borders[1:], edges, edges[1:], strict=False)
    # A rank without chunks writes nothing: the next one writes the block they would share.
    return [Share((a, b), (c, d)) if a < b else Share((a, a), (a, a)) for a, b, c, d in found]


def parts(
    layout: Layout, leaves: Sequence[Holding], window: tuple[int, int], destination: int
) -> Iterator[Part]:
    """Yield the parts of a window in order, from ``destination`` itself where it holds them."""
    start, end = window
    header = len(layout.header)
    if start < min(end, header):
        yield Part(HEADER, start, min(end, header), start, destination)
    place = max(bisect_right(layout.offsets, start) - 1, 0)
    for index, offset in zip(layout.indices[place:], layout.offsets[place:], strict=False):
        if offset >= end:
            return
        for piece in leaves[index].pieces:
            first, last = max(piece.first, start - offset), min(piece.last, end - offset)
            if first < last:
                own = destination in piece.ranks
                source = destination if own else piece.ranks[destination % len(piece.ranks)]
                yield Part(index, first, last, offset + first, source)


def chunks(layout: Layout, share: Share, window: tuple[int, int]) -> Iterator[Part]:
    """Yield the parts of a window to hash, each in one chunk of one leaf; the header is none."""
    start, end = max(window[0], share.hashed[0]), min(window[1], share.hashed[1])
    place = max(bisect_right(layout.offsets, start) - 1, 0)
    spans = zip(
        layout.indices[place:], layout.offsets[place:], layout.offsets[place + 1 :], strict=False
    )
    for index, offset, stop in spans:
        first, last = max(start, offset) - offset, min(end, stop) - offset
        while first < last:
            middle = min(last, (first // CHUNK + 1) * CHUNK)
            yield Part(index, first, middle, offset + first, HEADER)
            first = middle
        if offset >= end:
            return
