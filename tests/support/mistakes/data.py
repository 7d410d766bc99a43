"""Mistakes with data."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from functrain import errors
from functrain.data import Batches
from mistakes.parts import SLOW, X, fit


class Samples:
    """Four samples, with an action before each."""

    def __init__(self, first: Callable[[], object]) -> None:
        self.first = first

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        self.first()
        return X[index]


def leave() -> None:
    os._exit(3)


def sleep() -> None:
    time.sleep(5)


def read(data: Any) -> None:
    list(data)


class FromTheStart:
    """Batches that can be read again, but only from their beginning."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Tensor]:
        yield from [X] * self.count


class Longer(FromTheStart):
    """A loader in the shape of torch's with more batches than its length."""

    dataset = X

    def __init__(self) -> None:
        super().__init__(3)

    def __len__(self) -> int:
        return 2


class Few:
    """A sampler with fewer samples than its length."""

    def __len__(self) -> int:
        return 8

    def indices(self, epoch: int, start: int, stop: int) -> list[int]:
        return [0, 1, 2]


def cut(path: Path, first: int, then: int) -> None:
    fit("2 steps", FromTheStart(first), directory=path)
    fit("4 steps", FromTheStart(then), directory=path)


MISTAKES = [
    (errors.EmptyDatasetError, lambda: Batches(X[:0], 2), "no samples"),
    (errors.BatchIndexError, lambda: read(Batches(X, 2, sampler=Few())), "Few.indices(0, 0, 8)"),
    (
        errors.WorkerError,
        lambda: read(Batches(Samples(leave), 2, workers=1)),
        "ended unexpectedly",
        SLOW,
    ),
    (
        errors.WorkerError,
        lambda: read(Batches(Samples(sleep), 2, workers=1, timeout=0.5)),
        "batch 0 of epoch 0",
        SLOW,
    ),
    (
        errors.DataChangedError,
        lambda: fit("2 epochs", iter([X, X])),
        "can be iterated again: a list",
    ),
    (
        errors.LengthWarning,
        lambda: fit("2 epochs", Longer()),
        "has a length of 2 batches and gives more",
    ),
    (
        errors.ReplayWarning,
        lambda path: cut(path, 4, 4),
        "functrain.data.Batches, or a loader with state_dict",
    ),
]
