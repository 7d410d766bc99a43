"""The parts of first programs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import functrain as ft


class Net(nn.Module):
    """Two layers for four features and three classes."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x))


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x), y)


X = torch.linspace(-1, 1, 64).reshape(16, 4)
Y = torch.arange(16) % 3


def batches(**options: Any) -> Any:
    return ft.data.Batches((X, Y), batch_size=8, **options)


def program(
    loss: Any = cross_entropy, model: Any = None, optimizer: Any = None, **options: Any
) -> Any:
    return ft.program(model or Net(), loss, optimizer or ft.optim.AdamW(lr=1e-3), **options)


def step(loss: Any = cross_entropy, batch: Any = (X, Y), model: Any = None, **options: Any) -> Any:
    made = program(loss, model, **options)
    return made.train_step(made.init(seed=0), batch)


def fit(data: Any = None, until: Any = "2 steps", **options: Any) -> Any:
    return ft.fit(program(), batches() if data is None else data, until=until, **options)
