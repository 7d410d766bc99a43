"""Every chunk is hashed by one rank, every block is written by one, and all bytes arrive."""

from __future__ import annotations

from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st

from functrain.checkpoint.format.layout import Layout
from functrain.checkpoint.format.placed import Holding, Piece
from functrain.checkpoint.format.records import CHUNK
from functrain.checkpoint.together.shares import BLOCK, HEADER, chunks, parts, shares
from functrain.checkpoint.together.shares import Share as OneShare

SIZES = st.one_of(
    st.integers(0, 3),
    st.integers(0, 3 * BLOCK),
    st.sampled_from([BLOCK, BLOCK - 64, CHUNK, CHUNK + 1, 2 * CHUNK - 64, 3 * CHUNK]),
)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    sizes = draw(st.lists(SIZES, min_size=1, max_size=8))
    header = b"." * (64 * draw(st.integers(1, 3)))
    offsets = list(accumulate(sizes, initial=len(header)))
    return Layout("x.safetensors", header, list(range(len(sizes))), offsets)


def holdings(layout: Layout, ranks: int, cut: bool) -> list[Holding]:
    found = []
    for first, last in pairwise(layout.offsets):
        size = last - first
        bounds = [size * rank // ranks for rank in range(ranks + 1)]
        pieces = [Piece(a, b, (rank,)) for rank, (a, b) in enumerate(pairwise(bounds))]
        whole = [Piece(0, size, tuple(range(ranks)))]
        found.append(Holding((size,), (1,), None, tuple(pieces if cut else whole)))  # type: ignore[arg-type]
    return found


def tiles(ranges: list[tuple[int, int]], length: int) -> bool:
    full = [each for each in ranges if each[0] < each[1]]
    return [0, *(end for _, end in full)] == [*(start for start, _ in full), length]


@given(layouts(), st.integers(1, 9))
def test_shares_tile_the_file(layout: Layout, ranks: int) -> None:
    found = shares(layout, ranks)
    assert len(found) == ranks
    assert tiles([share.hashed for share in found], layout.length)
    assert tiles([share.written for share in found], layout.length)
    for share in found:
        assert share.written[0] % BLOCK == 0 or share.written[0] == share.written[1]
        assert share.needed[0] <= share.hashed[0] <= share.hashed[1] <= share.needed[1]
        assert share.needed[0] <= share.written[0] <= share.written[1] <= share.needed[1]


def windows(share: OneShare, size: int) -> list[tuple[int, int]]:
    count = -(-(share.needed[1] - share.needed[0]) // size)
    return [share.window(number, size) for number in range(count)]


@given(layouts(), st.integers(1, 5), st.booleans(), st.sampled_from([BLOCK, 16 * BLOCK]))
def test_windows_hold_all_bytes_once(layout: Layout, ranks: int, cut: bool, size: int) -> None:
    leaves, hashed = holdings(layout, ranks, cut), []
    for rank, share in enumerate(shares(layout, ranks)):
        at = share.needed[0]
        for window in windows(share, size):
            for part in parts(layout, leaves, window, rank):
                assert part.at == at
                at += part.length
                if part.index == HEADER:
                    continue
                assert layout.offsets[part.index] + part.first == part.at
                assert any(
                    piece.first <= part.first and part.last <= piece.last
                    for piece in leaves[part.index].pieces
                    if part.source in piece.ranks
                )
            assert at == window[1]
            hashed += [(p.index, p.first, p.last) for p in chunks(layout, share, window)]
        assert at == share.needed[1]
    assert all(first // CHUNK == (last - 1) // CHUNK for _, first, last in hashed)
    covered = [(layout.offsets[i] + first, layout.offsets[i] + last) for i, first, last in hashed]
    assert tiles([(0, len(layout.header)), *covered], layout.length)


@given(layouts(), st.integers(1, 9))
def test_a_chunk_has_one_rank(layout: Layout, ranks: int) -> None:
    borders = {share.hashed[0] for share in shares(layout, ranks)}
    starts = {0, layout.length}
    for first, last in pairwise(layout.offsets):
        starts |= set(range(first, last, CHUNK))
    assert borders <= starts
