"""The common parts of contenders that take a torch optimizer and a DataLoader."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from benchmarks.proof.tasks import BATCH_SIZE, RATE, Points, Task, held_out, loss, rate

Loader = DataLoader[tuple[Tensor, Tensor]]


def world() -> int:
    """Return the number of processes that were started together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def optimizer_and_scheduler(model: nn.Module, task: Task) -> tuple[torch.optim.Optimizer, LambdaLR]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    return optimizer, LambdaLR(optimizer, lambda update: rate(task, update))


def training_loader(task: Task, batch_size: int = BATCH_SIZE, **options: Any) -> Loader:
    options = {"shuffle": True, **options}
    return DataLoader(Points(task), batch_size, num_workers=task.workers, **options)


def held_out_loader(task: Task) -> Loader:
    return DataLoader(held_out(task), BATCH_SIZE)


@torch.no_grad()
def evaluate(model: nn.Module, batches: Loader) -> None:
    model.eval()
    for batch in batches:
        loss(model, batch)
    model.train()
