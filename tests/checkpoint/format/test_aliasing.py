"""The same view is an alias; memory shared in any other way is an error that names both."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from functrain.checkpoint import save
from functrain.checkpoint.format.aliasing import aliases, check
from functrain.errors import UnsupportedError
from functrain.tree import overlapping

W = torch.randn(6, 6)
Z = torch.randn(4, dtype=torch.complex64)


def named(*tensors: Tensor) -> list[Any]:
    return [((chr(ord("a") + index % 26), index), tensor) for index, tensor in enumerate(tensors)]


SAME = {
    "object": (W, W),
    "view": (W, W[:]),
    "parameter": (W, torch.nn.Parameter(W)),
    "transposed twice": (W.t(), W.t()[:]),
    "a stride that does not count": (W[:1, ::2][:, :1], W[:1, :1]),
    "expanded": (W[0].expand(3, 6), W[0].expand(3, 6)),
    "conjugate": (Z.conj(), Z.conj()),
}
OVERLAP = {
    "transposed": (W, W.t()),
    "whole and row": (W, W[2]),
    "whole and flat": (W, W.view(36)),
    "slices": (W[:3], W[2:]),
    "elements of strides": (W.view(36)[::2], W.view(36)[::3]),
    "columns": (W[:, :3], W[:, 2:4]),
    "row and column": (W[3], W[:, 5]),
    "dtype": (W, W.view(torch.int32)),
    "narrower dtype": (W.view(torch.uint8)[:, 3:4], W[:, 0]),
    "expanded and not": (W[0], W[0].expand(3, 6)),
    "conjugate": (Z, Z.conj()),
    "negative": (Z.conj().imag, Z.imag),
    "real part": (Z, Z.real),
    "diagonal": (W.diagonal(), W[4]),
    "windows": (W.view(36).unfold(0, 4, 2), W.view(36)[35:]),
}
APART = {
    "rows": (W[:3], W[3:]),
    "columns": (W[:, :2], W[:, 2:]),
    "three of six columns": (W[:, 0], W[:, 5], W[:, 1:5]),
    "odd and even": (W.view(36)[::2], W.view(36)[1::2]),
    "strides of 2 and 4": (W.view(36)[::2], W.view(36)[1::4], W.view(36)[3::4]),
    "real and imaginary": (Z.real, Z.imag),
    "copy": (W, W.clone()),
    "empty": (W, W[:0], W[2:2], torch.empty(0), torch.empty(0)),
    "triangle by hand": (W.view(36)[1:6], W.view(36)[8:12], W.diagonal()),
    "quarters": (W[:3, :3], W[:3, 3:], W[3:, :3], W[3:, 3:].t()),
    "bytes": (W.view(torch.uint8)[:, ::4], W.view(torch.int16)[:, 1::2]),
}


@pytest.mark.parametrize("kind", sorted(SAME))
def test_the_same_view_is_an_alias(kind: str) -> None:
    assert aliases(named(torch.ones(2), *SAME[kind])) == [None, None, 1]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("kind", sorted(OVERLAP))
def test_memory_shared_in_part_is_an_error_that_names_both(kind: str, turned: bool) -> None:
    one, two = OVERLAP[kind][::-1] if turned else OVERLAP[kind]
    with pytest.raises(UnsupportedError, match=r"b\.1 and d\.3 share.*Clone one of them"):
        aliases(named(torch.ones(2), one, torch.ones(3), two))


@pytest.mark.parametrize("kind", sorted(APART))
def test_views_that_share_no_byte_are_kept_apart(kind: str) -> None:
    for order in itertools.permutations(APART[kind]):
        assert aliases(named(*order)) == [None] * len(order)


def test_nothing_is_written_where_memory_overlaps(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"w and turned share"):
        save(tmp_path / "c", {"w": W, "turned": W.t()})
    assert not any(tmp_path.iterdir())


@st.composite
def views(draw: st.DrawFn) -> list[Tensor]:
    base, found = torch.zeros(40, dtype=torch.uint8), []
    for _ in range(draw(st.integers(2, 4))):
        sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
        steps = draw(st.lists(st.integers(0, 9), min_size=len(sizes), max_size=len(sizes)))
        last = sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
        if last < 40:
            found.append(base.as_strided(sizes, steps, draw(st.integers(0, 39 - last))))
    return found


def touched(tensor: Tensor) -> set[int]:
    ranges = [
        range(0, size * max(step, 1), max(step, 1)) if step else [0]
        for size, step in zip(tensor.shape, tensor.stride(), strict=True)
    ]
    return {tensor.storage_offset() + sum(offsets) for offsets in itertools.product(*ranges)}


def view_of(tensor: Tensor) -> Any:
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.storage_offset(), [(size, step if size > 1 else 0) for size, step in pairs]


@settings(max_examples=400, deadline=None)
@given(views())
def test_exactly_views_with_common_elements_are_refused(found: list[Tensor]) -> None:
    # Two strides can be the same view in other words only if one repeats elements: no alias then.
    pairs = list(itertools.combinations(found, 2))
    clash = any(touched(a) & touched(b) and view_of(a) != view_of(b) for a, b in pairs)
    if clash:
        with pytest.raises(UnsupportedError, match=r"share"):
            aliases(named(*found))
    else:
        shown = [view_of(tensor) for tensor in found]
        firsts = [shown.index(view) for view in shown]
        expected = [None if first == at else first for at, first in enumerate(firsts)]
        assert aliases(named(*found)) == expected


def test_many_interleaved_columns_are_checked_without_enumerating_elements() -> None:
    wide = torch.empty(3000, 2000)
    assert set(aliases(named(*wide.unbind(1)))) == {None}
    with pytest.raises(UnsupportedError, match=r"share"):
        aliases(named(*wide.unbind(1), wide[:, 7:9]))


def test_too_many_pieces_are_assumed_to_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = torch.empty(100)
    irregular = named(flat[0::6][:10], flat[4::4][:2])
    regular = named(flat[0::6][:10], flat[1::4][:10])
    behind = named(flat[0::6][:10], flat[60::4])
    assert aliases(irregular) == aliases(regular) == aliases(behind) == [None, None]
    monkeypatch.setattr(overlapping, "_MOST_RUNS", 11)
    assert aliases(regular) == aliases(behind) == [None, None]
    with pytest.raises(UnsupportedError, match=r"a\.0 and b\.1 share"):
        aliases(irregular)


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.empty(2, device="meta"), "a meta tensor"),
        (torch.eye(2).to_sparse(), "layout torch.sparse_coo"),
        (torch.eye(2).to_mkldnn(), "layout torch._mkldnn"),
        (torch.eye(2).as_subclass(type("Mine", (Tensor,), {})), "a Mine, a subclass"),
    ],
)
def test_check_names_the_reason(tensor: Tensor, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"w\.0 is .*{reason}"):
        check(("w", 0), tensor)


@pytest.mark.filterwarnings("ignore")
def test_check_refuses_quantized_nested_and_wrapped_tensors() -> None:
    quantized = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    for tensor in (quantized, torch.nested.nested_tensor([torch.ones(2)])):
        with pytest.raises(UnsupportedError, match=r"w is a quantized or nested"):
            check(("w",), tensor)

    def inside(tensor: Tensor) -> Tensor:
        with pytest.raises(UnsupportedError, match=r"w is a tensor inside of vmap"):
            check(("w",), tensor)
        return tensor

    torch.vmap(inside)(torch.ones(2))
