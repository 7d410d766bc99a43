"""Orders of one's own, and batches of samples of about one length."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import RandomSampler

from functrain import tree
from functrain.data import Batches, ByLength
from functrain.errors import ConfigurationError


class Often:
    """The first sample again and again: an epoch need not hold each sample once."""

    def __len__(self) -> int:
        return 7

    def indices(self, epoch: int, start: int, stop: int) -> Tensor:
        return torch.full((stop - start,), epoch)


def test_a_users_sampler() -> None:
    batches = Batches(torch.arange(10, 13), 3, sampler=Often())
    assert "in the order of a Often" in repr(batches)
    assert len(batches) == 3
    assert [batch.tolist() for batch in batches] == [[10] * 3, [10] * 3, [10]]
    assert batches[2, 1].tolist() == [12] * 3


@pytest.mark.parametrize("sampler", [RandomSampler(range(3)), [2, 0, 1], lambda: [2, 0, 1]])
def test_what_is_no_sampler_is_refused_with_the_remedy(sampler: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"sampler: expected .*DataLoader, a fixed order"):
        Batches(torch.arange(3), 2, sampler=sampler)


def test_an_order_as_a_list() -> None:
    class Backwards:
        def __len__(self) -> int:
            return 5

        def indices(self, epoch: int, start: int, stop: int) -> list[int]:
            return [4 - place for place in range(start, stop)]

    batches = Batches(torch.arange(5), 2, sampler=Backwards())
    assert [batch.tolist() for batch in batches] == [[4, 3], [2, 1], [0]]


@pytest.mark.parametrize("size", [1, 7, 64, 200])
@pytest.mark.parametrize("pool", [1, 3, 100])
def test_batches_by_length_hold_each_sample_once(size: int, pool: int) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 100, (size,), generator=generator)
    sampler = ByLength(lengths, 8, pool=pool, seed=1)
    batches = Batches(torch.arange(size), 8, sampler=sampler)
    orders = []
    for epoch in range(2):
        read = [batches[epoch, index] for index in range(len(batches))]
        orders.append(torch.cat(read).tolist())
        assert sorted(orders[-1]) == list(range(size))
    assert size < 8 or orders[0] != orders[1]
    whole = sampler.indices(1, 0, size)
    for start in range(0, size, 5):
        stop = min(start + 5, size)
        assert not tree.diff(sampler.indices(1, start, stop), whole[start:stop])


def test_batches_by_length_need_less_padding() -> None:
    lengths = torch.randint(1, 100, (2000,), generator=torch.Generator().manual_seed(0))

    def padding(batches: Batches) -> int:
        return sum(int(batch.max() * len(batch) - batch.sum()) for batch in batches)

    assert 10 * padding(Batches(lengths, 8, sampler=ByLength(lengths, 8))) < padding(
        Batches(lengths, 8)
    )


def test_a_pool_holds_batches() -> None:
    with pytest.raises(ConfigurationError, match="ByLength"):
        ByLength([1, 2], 0)
    with pytest.raises(ConfigurationError, match="pool"):
        ByLength([1, 2], 1, pool=0)
