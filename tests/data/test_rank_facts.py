"""The facts that ranks compare differ where their data do, and nothing is drawn for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from functrain.data import Batches, Mixture, as_source, prefetched
from functrain.data.batch_parts import Sharing
from functrain.data.parts import by_parts
from functrain.training.agreement import facts


class Computed(Dataset[Tensor]):
    """Samples that are known only once they are read."""

    def __init__(self, version: float = 0.0) -> None:
        self.reads = 0
        self.compute = lambda index: torch.rand(2) + index + version

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        self.reads += 1
        return self.compute(index)


def compared(data: Any, parts: int = 2) -> dict[str, str | int]:
    return facts(by_parts(as_source(data), Sharing(parts)))


def loader(seed: int) -> DataLoader[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(Computed(), 4, shuffle=True, generator=generator)


def torchdata(seed: int) -> Any:
    module = pytest.importorskip("torchdata.stateful_dataloader")
    torch.manual_seed(seed)  # its sampler is seeded when it is made
    return module.StatefulDataLoader(Computed(), batch_size=4, shuffle=True)


def mixed(**options: Any) -> Mixture:
    return Mixture({"a": Batches(Computed(), 4), "b": Batches(torch.ones(8), 4)}, **options)


@pytest.mark.parametrize(
    ("one", "other", "named"),
    [
        (lambda: Batches(Computed(), 4), lambda: Batches(Computed(1.0), 4), {"first batch"}),
        (lambda: Batches(Computed(), 4), lambda: Batches(Computed(), 4, seed=1), {"first", "seed"}),
        (lambda: Batches(torch.zeros(9), 4), lambda: Batches(torch.ones(9), 4), {"contents"}),
        (lambda: loader(0), lambda: loader(1), {"random generators"}),
        (lambda: torchdata(0), lambda: torchdata(1), {"random generators"}),
        (lambda: mixed(seed=1), lambda: mixed(seed=2), {"seed", "draws"}),
        (mixed, lambda: mixed(weights=[0.1, 0.9]), {"draws"}),
        (
            lambda: Mixture([Batches(Computed(), 4)]),
            lambda: Mixture([Batches(Computed(2.0), 4)]),
            {"first batch of the data in source '0'"},
        ),
        (
            lambda: prefetched(Batches(Computed(), 4), "cpu"),
            lambda: prefetched(Batches(Computed(2.0), 4), "cpu"),
            {"first batch"},
        ),
        (lambda: [torch.ones(2)] * 2, lambda: [torch.ones(2)] * 3, {"batches in an epoch"}),
    ],
)
def test_other_data_have_other_facts(one: Any, other: Any, named: set[str]) -> None:
    before, now = compared(one()), compared(other())
    assert before == compared(one())
    differing = [name for name in before if before[name] != now[name]]
    assert {name for name in named if any(name in each for each in differing)} == named


def test_the_facts_are_the_same_on_every_rank() -> None:
    every = [facts(by_parts(as_source(mixed()), Sharing(3, rank, 3))) for rank in range(3)]
    assert every[0] == every[1] == every[2]


def test_workers_alone_open_their_dataset() -> None:
    data = Computed()
    assert compared(Batches(data, 6, workers=1)) == compared(Batches(data, 6, workers=1))
    assert data.reads == 0
    compared(Batches(data, 6), parts=3)
    assert data.reads == 2


def test_an_iterator_keeps_its_batches() -> None:
    data = iter([torch.ones(2), torch.zeros(2)])
    compared(data)
    assert len([*data]) == 2
