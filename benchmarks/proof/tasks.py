"""The training tasks, and the step at which a process kills itself."""

from __future__ import annotations

import os
import random
import signal
from typing import Literal

import attrs
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

SAMPLES, BATCH_SIZE, EPOCHS = 128, 16, 3
BATCHES = EPOCHS * SAMPLES // BATCH_SIZE
RATE = 1e-2


@attrs.frozen
class Task:
    """A network and how it is trained.

    Attributes:
        kills: after how many batches each process is killed; epochs have 8 batches.
        save_every: batches between two checkpoints.
        evaluate_every: batches between two evaluations, 0 for none.
        parts: the most processes that the run may ever have.
    """

    name: str
    width: int = 32
    dropout: float = 0.0
    batch_norm: bool = False
    augment: Literal["torch", "numpy", "python"] | None = None
    workers: int = 0
    cosine: bool = False
    accumulate: int = 1
    evaluate_every: int = 0
    kills: tuple[int, ...] = (13,)
    save_every: int = 5
    parts: int = 1

    @property
    def updates(self) -> int:
        """Updates of the weights in the whole run."""
        return BATCHES // self.accumulate

    @property
    def save_every_updates(self) -> int:
        return max(1, self.save_every // self.accumulate)


TASKS = (
    Task("shuffled data"),
    Task("dropout", dropout=0.5),
    Task("batch norm", batch_norm=True),
    Task("augmentation with torch", augment="torch"),
    Task("augmentation with NumPy", augment="numpy"),
    Task("augmentation with `random`", augment="python"),
    Task("augmentation in 2 workers", augment="torch", workers=2),
    Task("cosine schedule", cosine=True),
    Task("accumulation of 2 batches", dropout=0.5, accumulate=2, save_every=6),
    Task(
        "all of these, with evaluations, killed twice",
        dropout=0.5,
        batch_norm=True,
        augment="numpy",
        workers=2,
        cosine=True,
        accumulate=2,
        evaluate_every=6,
        kills=(11, 9),
        save_every=6,
    ),
)


class Points(Dataset[tuple[Tensor, Tensor]]):
    """Points of 16 coordinates with one of 4 labels, jittered in one way or another."""

    def __init__(self, task: Task, seed: int = 0, samples: int = SAMPLES) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(samples, 16, generator=generator)
        self.y = self.x[:, :4].argmax(-1)
        self.augment = task.augment if seed == 0 else None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index] * self._scale(), self.y[index]

    def _scale(self) -> float:
        if self.augment == "torch":
            return 1 + 0.1 * torch.randn(()).item()
        if self.augment == "numpy":
            return 1 + 0.1 * float(np.random.randn())
        return 1 + 0.1 * random.gauss(0, 1) if self.augment == "python" else 1.0


def held_out(task: Task) -> Points:
    return Points(task, seed=1, samples=32)


class Net(nn.Module):
    """A network of two layers that counts the batches it is trained on."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        norm = [nn.BatchNorm1d(task.width)] if task.batch_norm else []
        self.layers = nn.Sequential(
            *(nn.Linear(16, task.width), *norm, nn.ReLU(), nn.Dropout(task.dropout)),
            *(nn.Linear(task.width, task.width), nn.ReLU(), nn.Linear(task.width, 4)),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            Fuse.burn()
        return self.layers(x)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x), y)


def rate(task: Task, update: int) -> float:
    """Return the learning rate of an update, relative to the first."""
    return 0.5 * (1 + float(np.cos(np.pi * update / task.updates))) if task.cosine else 1.0


class Fuse:
    """Ends the process by SIGKILL when the model sees one batch more than `batches`."""

    batches: int | None = None
    burnt = 0

    @classmethod
    def burn(cls) -> None:
        if cls.burnt == cls.batches:
            os.kill(os.getpid(), signal.SIGKILL)
        cls.burnt += 1
