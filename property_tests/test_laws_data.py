"""Laws of the order of data: a function of seed, epoch and index, and of nothing else."""

from __future__ import annotations

import random
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import Dataset
from trying import tried

from functrain import tree
from functrain.data import Batches, as_source


class Noisy(Dataset[Tensor]):
    """Samples that are augmented at random."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        return torch.rand(2) + random.random() + 10 * index


@st.composite
def batches(draw: st.DrawFn) -> Batches:
    return Batches(
        Noisy(draw(st.integers(1, 23))),
        draw(st.integers(1, 5)),
        seed=draw(st.integers(-(2**63), 2**63)),
        shuffle=draw(st.booleans()),
    )


def read(data: Batches, epoch: int, index: int, count: int) -> list[Any]:
    stream = data.stream(epoch, index)
    found = [next(stream)[2] for _ in range(count)]
    stream.close()
    return found


@pytest.mark.row(21)
@tried(200)
@given(data=batches(), epoch=st.integers(0, 2**40))
def test_an_epoch_holds_each_sample_once(data: Batches, epoch: int) -> None:
    found = torch.cat([data.indices(epoch, index) for index in range(len(data))])
    assert sorted(found.tolist()) == list(range(data.samples))


@tried(100)
@given(seed=st.integers(0, 2**32), epoch=st.integers(0, 2**32))
def test_epochs_and_seeds_differ(seed: int, epoch: int) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return Batches(range(64), 64, seed=seed).indices(epoch, 0).tolist()

    assert order(seed, epoch) not in [order(seed, epoch + 1), order(seed + 1, epoch)]
    assert order(seed, epoch) == order(seed, epoch)


@tried(150)
@given(data=batches(), epoch=st.integers(0, 3), start=st.integers(0, 40), draws=st.integers(0, 9))
def test_a_batch_is_a_function_of_its_place(
    data: Batches, epoch: int, start: int, draws: int
) -> None:
    start %= len(data)
    whole = read(data, epoch, 0, 2 * len(data))
    torch.rand(draws), random.seed(draws)  # as another process would have them
    other = attrs.evolve(data)
    assert tree.diff(read(other, epoch, start, len(data)), whole[start : start + len(data)]) == []
    places = list(range(2 * len(data)))
    random.Random(draws).shuffle(places)
    for place in places:
        more, index = divmod(place, len(data))
        assert tree.diff(other[epoch + more, index], whole[place]) == []


@tried(150)
@given(data=batches(), cuts=st.lists(st.integers(0, 9), max_size=4))
def test_parts_make_the_whole(data: Batches, cuts: list[int]) -> None:
    whole = [data[epoch, index] for epoch in range(3) for index in range(len(data))]
    found: list[Any] = []
    for part in [*cuts, len(whole)]:
        source = as_source(attrs.evolve(data))
        while part > 0 and len(found) < len(whole):
            epoch, start = divmod(len(found), len(data))
            rest = list(source.epoch(99, epoch, start, None))[:part]
            found, part = found + rest, part - len(rest)
        source.close()
    assert tree.diff(found, whole) == []


@pytest.mark.slow
@pytest.mark.row(33)
@tried(5)
@given(data=batches(), workers=st.integers(1, 2), start=st.integers(0, 40))
def test_workers_change_nothing(data: Batches, workers: int, start: int) -> None:
    start %= len(data)
    count = len(data) + 2
    found = read(attrs.evolve(data, workers=workers), 1, start, count)
    assert tree.diff(found, read(data, 1, start, count)) == []
