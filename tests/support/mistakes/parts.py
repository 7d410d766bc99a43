"""Small parts that many mistakes share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import functrain as ft

SLOW = True  # starts processes
X = torch.linspace(-1, 1, 32).reshape(8, 4)


def squared(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


def linear() -> nn.Module:
    return nn.Linear(4, 1)


def program(loss: Any = squared, model: Any = linear, **options: Any) -> ft.Program:
    return ft.program(model, loss, options.pop("optimizer", ft.optim.SGD(lr=0.1)), **options)


def step(made: ft.Program, batch: Any = X) -> Any:
    return made.train_step(made.init(), batch)


def batches(rows: int = 8) -> ft.data.Batches:
    return ft.data.Batches(X[:rows], batch_size=2)


def fit(until: str = "4 steps", data: Any = None, **options: Any) -> ft.Run:
    made = options.pop("program", None) or program()
    return ft.fit(made, batches() if data is None else data, until=until, **options)
