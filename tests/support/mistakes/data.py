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
from mistakes.mistake import Mistake, X, batches, fit


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
    Mistake(
        errors.EmptyDatasetError,
        lambda *_: Batches(X[:0], 2),
        ("Tensor",),
        ("no samples",),
    ),
    Mistake(errors.EmptyDatasetError, lambda *_: fit(data=[]), ("an empty list",), ("empty",)),
    Mistake(
        errors.EmptyDatasetError,
        lambda *_: fit(data=FromTheStart(0)),
        ("no batch in epoch 0", "FromTheStart"),
        ("check what this FromTheStart yields",),
    ),
    Mistake(
        errors.BatchIndexError,
        lambda *_: read(Batches(X, 2, sampler=Few())),
        ("Few.indices(0, 0, 8)", "got [3]"),
        ("expected 8 samples",),
    ),
    Mistake(
        errors.EmptyDatasetError,
        lambda *_: Batches(X, 9, drop_last=True),
        ("8 samples", "batch of 9"),
        ("smaller batch_size or drop_last=False",),
    ),
    Mistake(
        errors.ConfigurationError,
        lambda *_: Batches(X, 0),
        ("Batches: batch_size", "got 0"),
        ("an integer >= 1",),
    ),
    Mistake(
        errors.UnsupportedError,
        lambda *_: Batches([X] * 9, 2),
        ("list of 9 tensors of one shape",),
        ("torch.stack(list)", "tuple(list)"),
    ),
    Mistake(
        errors.ConfigurationError,
        lambda *_: Batches({"x": X, "y": X[:3]}, 2),
        ("x' has 8 rows", "y' has 3"),
        ("equally long",),
    ),
    Mistake(
        errors.UnsupportedError,
        lambda *_: Batches(iter(X), 2),
        ("Batches needs a dataset with a length", "has none"),
        ("DataLoader(dataset, batch_size=...)",),
    ),
    Mistake(
        errors.BatchIndexError,
        lambda *_: batches()[0, 4],
        ("no batch 4 of epoch 0",),
        ("0 to 3",),
    ),
    Mistake(
        errors.WorkerDiedError,
        lambda *_: read(Batches(Samples(leave), 2, workers=1)),
        ("ended unexpectedly",),
        ("try workers=0",),
        slow=True,
    ),
    Mistake(
        errors.WorkerTimeoutError,
        lambda *_: read(Batches(Samples(sleep), 2, workers=1, timeout=0.5)),
        ("no batch in 0.5 s", "batch 0 of epoch 0"),
        ("try workers=0", "a longer timeout"),
        slow=True,
    ),
    Mistake(
        errors.ConfigurationError,
        lambda *_: Mixture({"a": batches(), "b": batches()}, weights=[1.0]),
        ("['a', 'b']",),
        ("one weight for each",),
    ),
    Mistake(
        errors.ConfigurationError,
        lambda *_: Packed([torch.arange(3)], 8),
        ("3 tokens",),
        ("it takes 9",),
    ),
    Mistake(
        errors.UnsupportedError,
        lambda *_: fit(data=X),
        ("a Tensor does not",),
        ("functrain.data.Batches(data, batch_size)", "[data]"),
    ),
    Mistake(
        errors.DataChangedError,
        lambda *_: fit("2 epochs", iter([X, X])),
        ("can be read only once", "epoch 1"),
        ("can be iterated again: a list",),
    ),
    Mistake(
        errors.DataChangedError,
        lambda path, _: cut(path, 4, 1),
        ("after 2 batches of epoch 0", "ends after 1"),
        ("Give the data the run was started with",),
    ),
    Mistake(
        errors.ReplayWarning,
        lambda path, _: cut(path, 4, 4),
        ("in epoch 0, 2 batches",),
        ("functrain.data.Batches, or a loader with state_dict",),
    ),
    Mistake(
        errors.EmptyBatchWarning,
        lambda *_: fit(eval_data=[X, X[:0]]),
        ("batch 1 of the evaluation data",),
        ("skipped",),
    ),
    Mistake(
        errors.UnsupportedError,
        lambda *_: ft.evaluate(None, None, 3),  # type: ignore[arg-type]
        ("int",),
        ("data: expected",),
    ),
]
