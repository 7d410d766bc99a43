"""Batches of which each holds samples of several datasets."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from data_kinds import p_value
from torch import Tensor
from torch.utils.data import Dataset

from functrain import tree
from functrain.data import Interpolated, mixed_samples
from functrain.errors import ConfigurationError, EmptyDatasetError

pytestmark = pytest.mark.row(31)


class Noisy(Dataset[Tensor]):
    def __init__(self, size: int, first: int) -> None:
        self.size, self.first = size, first

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return torch.stack([torch.tensor(float(index + self.first)), torch.rand(())])


def columns() -> dict[str, Any]:
    return {"a": torch.arange(10), "b": torch.arange(100, 130), "c": torch.arange(1000, 1060)}


@pytest.mark.parametrize(
    ("weights", "shares"),
    [("uniform", [1, 1, 1]), ("proportional", [1, 3, 6]), ([0.1, 0.2, 0.7], [1, 2, 7])],
)
def test_each_batch_holds_samples_by_their_weights(weights: Any, shares: list[int]) -> None:
    data = mixed_samples(columns(), 50, weights=weights, with_sources=True, length=100)
    sources = torch.cat([sources for sources, _ in data])
    expected = [5000 * share / sum(shares) for share in shares]
    assert p_value(torch.bincount(sources).tolist(), expected) > 1e-3


def test_each_dataset_is_read_completely_before_it_restarts() -> None:
    data = mixed_samples(columns(), 7, weights=[1, 1, 1], seed=2)
    drawn = torch.cat([batch for _, _, batch in islice(data.stream(), 60)])
    for first, size in ((0, 10), (100, 30), (1000, 60)):
        own = drawn[(drawn >= first) & (drawn < first + size)]
        assert len(own) > size
        turns = own[: len(own) // size * size].view(-1, size)
        assert all(len(set(turn.tolist())) == size for turn in turns)
        if len(turns) > 1:
            assert turns[0].tolist() != turns[1].tolist()


def test_unshuffled_datasets_are_read_in_order() -> None:
    drawn = torch.cat(list(mixed_samples(columns(), 10, weights=[1, 1, 1], shuffle=False)))
    own = drawn[drawn < 100]
    assert own.tolist() == [k % 10 for k in range(len(own))]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("make", [columns, lambda: [Noisy(5, 0), Noisy(9, 100)]])
def test_any_batch_is_the_one_of_the_stream(make: Any, workers: int) -> None:
    weights = Interpolated({0: [1] * len(make()), 9: [1] + [0] * (len(make()) - 1)})
    data = mixed_samples(make(), 4, weights=weights, length=5, with_sources=True, workers=workers)
    stream = list(islice(data.stream(), 12))
    for epoch, index, batch in reversed(stream):
        fresh = mixed_samples(make(), 4, weights=weights, length=5, with_sources=True)
        assert not tree.diff(batch, fresh[epoch, index])
    assert stream[-1][2][0].tolist() == [0, 0, 0, 0]
    tail = mixed_samples(make(), 4, weights=weights, length=5, with_sources=True).stream(1, 2)
    assert not tree.diff(list(islice(tail, 5)), stream[7:])


def test_a_sample_that_occurs_twice_in_an_epoch_is_augmented_differently() -> None:
    data = mixed_samples([Noisy(2, 0), Noisy(2, 100)], 8, weights=[1, 1], length=3)
    noise = torch.cat(list(data))[:, 1]
    assert len(noise.unique()) == len(noise)


def test_a_transform_applies_to_samples_of_all_datasets() -> None:
    plain = mixed_samples(columns(), 4, seed=3)
    doubled = mixed_samples(columns(), 4, seed=3, transform=lambda sample: 2 * sample)
    assert not tree.diff([2 * batch for batch in plain], list(doubled))


def test_dicts_and_tuples_of_columns_keep_their_form() -> None:
    parts = [{"x": torch.rand(5, 2), "y": torch.arange(5) + 10 * k} for k in range(2)]
    batch = next(iter(mixed_samples(parts, 6, weights="uniform")))
    assert set(batch) == {"x", "y"}
    for x, y in zip(batch["x"], batch["y"].tolist(), strict=True):
        assert torch.equal(x, parts[y // 10]["x"][y % 10])
    pair = mixed_samples([(torch.rand(5), torch.arange(5))] * 2, 4)
    assert [type(batch) for batch in pair] == [tuple] * 3


def test_samples_that_do_not_fit_into_one_batch_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"float32.*int64"):
        mixed_samples([torch.rand(4), torch.arange(4)], 2)
    with pytest.raises(ConfigurationError, match=r"'x'.*'y'"):
        mixed_samples([{"x": torch.rand(4)}, {"y": torch.rand(4)}], 2)
    with pytest.raises(ConfigurationError, match=r"no length.*Mixture"):
        mixed_samples([torch.rand(4), iter([1])], 2)
    with pytest.raises(EmptyDatasetError, match="'1'"):
        mixed_samples([torch.rand(4), torch.rand(0)], 2)
