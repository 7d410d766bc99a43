"""The order is a bijection, stable for ever, and looks like a random one."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from functrain.data import Permutation

SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 255, 256, 257, 1797, 4096, 4097, 10**6]


def excess(counts: torch.Tensor, expected: float, freedom: int) -> float:
    """Chi-square as standard deviations from its mean."""
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    return (chi_square - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_each_sample_once(size: int, seed: int) -> None:
    order = Permutation(size, seed, 3).indices(0, size)
    assert torch.equal(order.sort().values, torch.arange(size))


@given(st.integers(1, 5000), st.integers(), st.integers(0, 10**9), st.data())
def test_any_part_is_a_part_of_the_whole(
    size: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(start, size))
    order = Permutation(size, seed, epoch)
    whole = order.indices(0, size)
    assert torch.equal(whole.sort().values, torch.arange(size))
    assert torch.equal(order.indices(start, stop), whole[start:stop])


def test_the_order_never_changes() -> None:
    assert Permutation(10, 0, 0).indices(0, 10).tolist() == [7, 3, 1, 2, 8, 6, 4, 9, 5, 0]
    assert Permutation(1797, 1, 2).indices(1000, 1005).tolist() == [1175, 1087, 1508, 1283, 448]
    assert Permutation(10**12, -1, 3).indices(10**11, 10**11 + 3).tolist() == [
        126511149539,
        524029945426,
        430213821322,
    ]


def test_a_far_position_of_a_huge_set_is_in_range_and_distinct() -> None:
    size = 2**61 + 12345
    order = Permutation(size, 0, 0).indices(size - 4096, size)
    assert len(order.unique()) == 4096
    assert int(order.min()) >= 0
    assert int(order.max()) < size


@pytest.mark.sweep
@pytest.mark.parametrize("size", [4, 2, 3, 5])
def test_every_order_of_a_small_set_is_as_likely(size: int) -> None:
    epochs = 20 * math.factorial(size)
    seen = Counter(
        tuple(Permutation(size, 11, epoch).indices(0, size).tolist()) for epoch in range(epochs)
    )
    counts = torch.tensor([float(seen[order]) for order in permutations(range(size))])
    assert abs(excess(counts, 20, len(counts) - 1)) < 4


@pytest.mark.sweep
@pytest.mark.parametrize("size", [30, 7, 256])
def test_every_sample_is_as_likely_at_every_position_and_after_every_other(size: int) -> None:
    epochs = 2000
    places, gaps = torch.zeros(size, size), torch.zeros(size)
    for epoch in range(epochs):
        order = Permutation(size, 12, epoch).indices(0, size)
        places[torch.arange(size), order] += 1
        gaps += torch.bincount((order[1:] - order[:-1]) % size, minlength=size)
    assert abs(excess(places, epochs / size, (size - 1) ** 2)) < 4
    assert abs(excess(gaps[1:], epochs, size - 2)) < 4


@pytest.mark.parametrize("size", [1797, 10**6])
@pytest.mark.parametrize("lag", [1, 2, 1000])
def test_neighbours_are_not_correlated(size: int, lag: int) -> None:
    order = Permutation(size, 13, 0).indices(0, size).double()
    order = (order - order.mean()) / order.std()
    assert abs(float((order[lag:] * order[:-lag]).mean())) * math.sqrt(size) < 4
