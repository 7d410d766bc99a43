"""Mistakes with data."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import functrain as ft
from functrain import errors
from functrain.data import Batches, Mixture, Packed
from mistakes.mistake import SLOW, X, batches, fit


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


MISTAKES = {
    errors.EmptyDatasetError: [
        (lambda: Batches(X[:0], 2), "no samples … Tensor"),
        (lambda: fit(data=[]), "an empty list: … at least one batch"),
        (
            lambda: fit(data=FromTheStart(0)),
            "no batch in epoch 0: … check what this FromTheStart yields",
        ),
        (
            lambda: Batches(X, 9, drop_last=True),
            "8 samples … batch of 9 … smaller batch_size or drop_last=False",
        ),
    ],
    errors.BatchIndexError: [
        (
            lambda: read(Batches(X, 2, sampler=Few())),
            "Few.indices(0, 0, 8) … expected 8 samples … got [3]",
        ),
        (lambda: batches()[0, 4], "no batch 4 of epoch 0 … 0 to 3"),
    ],
    errors.ConfigurationError: [
        (lambda: Batches({"x": X, "y": X[:3]}, 2), "equally long … x' has 8 rows … y' has 3"),
        (
            lambda: Mixture({"a": batches(), "b": batches()}, weights=[1.0]),
            "one weight for each … ['a', 'b']",
        ),
        (lambda: Packed([torch.arange(3)], 8), "3 tokens … it takes 9"),
    ],
    errors.UnsupportedError: [
        (
            lambda: Batches([X] * 9, 2),
            "list of 9 tensors of one shape … torch.stack(list) … tuple(list)",
        ),
        (
            lambda: Batches(iter(X), 2),
            "Batches needs a dataset with a length … has none … "
            "DataLoader(dataset, batch_size=...)",
        ),
        (
            lambda: fit(data=X),
            "a Tensor does not … functrain.data.Batches(data, batch_size) … [data]",
        ),
        (lambda: ft.evaluate(None, None, 3), "data: expected … int"),
    ],
    errors.WorkerDiedError: [
        (
            lambda: read(Batches(Samples(leave), 2, workers=1)),
            "ended unexpectedly … try workers=0",
            SLOW,
        ),
    ],
    errors.WorkerTimeoutError: [
        (
            lambda: read(Batches(Samples(sleep), 2, workers=1, timeout=0.5)),
            "no batch in 0.5 s … batch 0 of epoch 0 … try workers=0 … a longer timeout",
            SLOW,
        ),
    ],
    errors.DataChangedError: [
        (
            lambda: fit("2 epochs", iter([X, X])),
            "can be read only once … epoch 1 … can be iterated again: a list",
        ),
        (
            lambda path: cut(path, 4, 1),
            "after 2 batches of epoch 0 … ends after 1 … Give the data the run was started with",
        ),
    ],
    errors.LengthWarning: [
        (
            lambda: fit("2 epochs", Longer()),
            "has a length of 2 batches and gives more … Remove __len__ … or correct the length",
        ),
    ],
    errors.ReplayWarning: [
        (
            lambda path: cut(path, 4, 4),
            "in epoch 0, 2 batches … functrain.data.Batches, or a loader with state_dict",
        ),
    ],
    errors.EmptyBatchWarning: [
        (lambda: fit(eval_data=[X, X[:0]]), "batch 1 of the evaluation data … skipped"),
    ],
}
