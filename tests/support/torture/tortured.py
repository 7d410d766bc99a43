"""A small run as a user would write it: noisy samples, some of them NaN, in worker processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import functrain as ft

SAMPLES = 1200


class Points(Dataset[tuple[Tensor, Tensor]]):
    """Points with noise drawn when they are read; every 97th is NaN, as from a bad disk.

    Args:
        size: how many.
        noise: its size; 0 for none, and no NaN.
        seeded: draw it from the number of the point, not from the worker's generator.
    """

    def __init__(self, size: int, noise: float, seeded: bool = False) -> None:
        generator = torch.Generator().manual_seed(size)
        self.x = torch.randn(size, 8, generator=generator)
        self.y = (self.x.square().sum(1) > 7).long()
        self.noise, self.seeded = noise, seeded

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(index) if self.seeded else None
        x = self.x[index] + self.noise * torch.randn(8, generator=generator)
        return (x * torch.nan if self.noise and index % 97 == 0 else x), self.y[index]


def model() -> nn.Module:
    return nn.Sequential(
        *(nn.Linear(8, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2)),
        *(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)),
    )


def loss(model: nn.Module, batch: Any) -> ft.Loss:
    x, y = batch
    logits = model(x)
    accuracy = (logits.argmax(-1) == y).float().mean()
    return ft.Loss(nn.functional.cross_entropy(logits, y), metrics={"accuracy": accuracy})


def training_data(kind: str = "loader") -> Any:
    """A torch ``DataLoader`` that is read again, or one of torchdata that saves its position."""
    options: dict[str, Any] = {"batch_size": 8, "shuffle": True, "num_workers": 2}
    if kind == "stateful":
        from torchdata.stateful_dataloader import StatefulDataLoader

        # It saves its position, but not the generators of its workers. Without a generator its
        # sampler takes a random seed, so no two runs would be the same.
        options["generator"] = torch.Generator().manual_seed(0)
        return StatefulDataLoader(Points(SAMPLES, 0.1, seeded=True), **options)
    return DataLoader(Points(SAMPLES, 0.1), **options)


def validation_data() -> Any:
    return DataLoader(Points(100, 0.0), batch_size=50)
