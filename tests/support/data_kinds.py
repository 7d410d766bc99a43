"""Data of every kind that ``fit`` takes; each call makes a new object."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from ends import CutAt as CutAt
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    WeightedRandomSampler,
    get_worker_info,
)

from functrain.data import Batches


class Noisy(Dataset[Tensor]):
    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> Tensor:
        return torch.randn(2) + random.random() + np.random.randn() + 100 * index


class Streamed(IterableDataset[Tensor]):
    """Samples of unknown number, in an order drawn from the global generator."""

    def __iter__(self) -> Iterator[Tensor]:
        for index in torch.randperm(11).tolist():
            yield torch.randn(2) + random.random() + 100 * index


class StreamedByWorkers(IterableDataset[Tensor]):
    """Samples that are divided among the workers."""

    def __iter__(self) -> Iterator[Tensor]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for index in range(first, 11, step):
            yield torch.randn(2) + random.random() + np.random.randn() + 100 * index


class Rereadable:
    def __iter__(self) -> Iterator[float]:
        return (random.random() + k for k in range(5))


class SavesItself:
    """The smallest loader with a state: it keeps its own order and position."""

    def __init__(self, seed: int) -> None:
        self.order = random.Random(seed)
        self.load_state_dict({"position": 0, "order": self.order.getstate()})

    def __iter__(self) -> Iterator[Any]:
        if self.position == 0:
            self.started = self.order.getstate()
        batches = list(range(5))
        self.order.shuffle(batches)
        while self.position < 5:
            self.position += 1
            yield batches[self.position - 1] + torch.rand(3) + np.random.rand()
        self.position = 0
        self.started = self.order.getstate()

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "order": self.started}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position, self.started = state["position"], state["order"]
        self.order.setstate(self.started)


class SavesItselfSized(SavesItself):
    def __len__(self) -> int:
        return 5


class StreamedWithState(IterableDataset[Tensor]):
    """A streamed dataset for torchdata: its iterator can save itself."""

    def __iter__(self) -> Iterator[Tensor]:
        return SavesItselfIterating()


class SavesItselfIterating:
    position = 0

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        if self.position == 11:
            raise StopIteration
        self.position += 1
        return torch.randn(2) + random.random() + 100 * self.position

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class Distributed(RandomSampler):
    """Draw like torch's DistributedSampler: the same in each epoch without ``set_epoch``."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.epoch)
        return iter(torch.randperm(11, generator=generator).tolist())


def with_generator(**options: Any) -> DataLoader[Tensor]:
    return DataLoader(
        Noisy(), batch_size=2, shuffle=True, generator=torch.Generator().manual_seed(9), **options
    )


def sampler_with_generator() -> DataLoader[Tensor]:
    sampler = RandomSampler(Noisy(), generator=torch.Generator().manual_seed(9))
    return DataLoader(Noisy(), batch_size=2, sampler=sampler)


def stateful_loader(dataset: Any = None, **options: Any) -> Any:
    torchdata = pytest.importorskip("torchdata.stateful_dataloader")
    dataset = Noisy() if dataset is None else dataset
    return torchdata.StatefulDataLoader(dataset, batch_size=2, **options)


MAKERS: dict[str, Callable[[], Any]] = {
    "Batches": lambda: Batches(Noisy(), 2, seed=4),
    "Batches, 2 workers": lambda: Batches(Noisy(), 2, seed=4, workers=2),
    "list": lambda: [torch.ones(3) * k for k in range(5)],
    "DataLoader": lambda: DataLoader(Noisy(), batch_size=2, shuffle=True),
    "DataLoader, 2 workers": lambda: DataLoader(Noisy(), 2, shuffle=True, num_workers=2),
    "DataLoader, persistent workers": lambda: DataLoader(
        Noisy(), 2, shuffle=True, num_workers=2, persistent_workers=True
    ),
    "DataLoader, own generator": with_generator,
    "DataLoader, own generator, 2 workers": lambda: with_generator(num_workers=2),
    "DataLoader, generator of the sampler": sampler_with_generator,
    "DataLoader, set_epoch": lambda: DataLoader(Noisy(), 2, sampler=Distributed(Noisy())),
    "DataLoader, batch_sampler": lambda: DataLoader(
        Noisy(), batch_sampler=BatchSampler(RandomSampler(Noisy()), 3, drop_last=True)
    ),
    "DataLoader, sampler with weights": lambda: DataLoader(
        Noisy(), 2, sampler=WeightedRandomSampler([1.0, 2.0] * 5 + [9.0], 9)
    ),
    "DataLoader, streamed, 2 workers": lambda: DataLoader(StreamedByWorkers(), 2, num_workers=2),
    "DataLoader, pinned": lambda: DataLoader(
        Noisy(), 2, shuffle=True, pin_memory=torch.cuda.is_available()
    ),
    "DataLoader, length unknown": lambda: DataLoader(Streamed(), batch_size=2),
    "iterable": Rereadable,
    "own state": lambda: SavesItself(3),
    "own state and length": lambda: SavesItselfSized(3),
    "StatefulDataLoader": lambda: stateful_loader(shuffle=True),
    "StatefulDataLoader, 2 workers": lambda: stateful_loader(
        list(range(11)), shuffle=True, num_workers=2
    ),
    "StatefulDataLoader, own generator": lambda: stateful_loader(
        shuffle=True, generator=torch.Generator().manual_seed(9)
    ),
    "StatefulDataLoader, own generator, 2 workers": lambda: stateful_loader(
        list(range(11)), shuffle=True, generator=torch.Generator().manual_seed(9), num_workers=2
    ),
    "StatefulDataLoader, length unknown": lambda: stateful_loader(StreamedWithState()),
}
# Worker processes take a while to start, and test_sources.py resumes these by themselves.
MORE_WORKERS = {
    "DataLoader, persistent workers",
    "DataLoader, own generator, 2 workers",
    "DataLoader, streamed, 2 workers",
    "StatefulDataLoader, own generator, 2 workers",
}


def disturb(seed: int) -> None:
    """Advance the global generators, as another process would have them."""
    torch.manual_seed(seed), random.seed(seed), np.random.seed(seed)


def p_value(counts: list[int], expected: list[float] | None = None) -> float:
    """Return how probable counts at least as uneven are, by a chi-squared test."""
    from scipy.stats import chisquare  # two seconds, which collection need not take

    return float(chisquare(counts, expected).pvalue)
