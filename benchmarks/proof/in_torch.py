"""Plain PyTorch, as its tutorial saves a general checkpoint, and as careful as one can be."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.proof.tasks import (
    BATCH_SIZE,
    EPOCHS,
    RATE,
    Net,
    Points,
    Task,
    held_out,
    loss,
    rate,
)


def train(task: Task, directory: Path) -> dict[str, torch.Tensor]:
    """Save model, optimizer, scheduler and position; after a kill, skip the batches seen."""
    return _train(task, directory, careful=False)


def train_carefully(task: Task, directory: Path) -> dict[str, torch.Tensor]:
    """Save every generator as well, and seed the order of each epoch by its number."""
    return _train(task, directory, careful=True)


def _train(task: Task, directory: Path, careful: bool) -> dict[str, torch.Tensor]:
    seed_generators(0)
    model = Net(task)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: rate(task, update))
    order = torch.Generator() if careful else None
    loader = DataLoader(
        Points(task), BATCH_SIZE, shuffle=True, num_workers=task.workers, generator=order
    )
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    file, position, saved = directory / "checkpoint.pt", 0, None
    if file.exists():
        saved = torch.load(file, weights_only=False)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        position = saved["position"]
    for epoch in range(position // len(loader), EPOCHS):
        if order is not None:
            order.manual_seed(epoch)
        batches = iter(loader)
        for index in range(epoch * len(loader), (epoch + 1) * len(loader)):
            if careful and saved is not None and index == position:
                set_generators(saved["generators"])
            batch = next(batches)
            if index < position:
                continue
            (loss(model, batch) / task.accumulate).backward()
            if (index + 1) % task.accumulate == 0:
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            if task.evaluate_every and (index + 1) % task.evaluate_every == 0:
                evaluate(model, task)
            if (index + 1) % (task.save_every_updates * task.accumulate) == 0:
                state: dict[str, Any] = {n: part.state_dict() for n, part in parts.items()}
                torch.save(state | {"position": index + 1, "generators": generators()}, file)
    return dict(model.state_dict())


@torch.no_grad()
def evaluate(model: nn.Module, task: Task) -> None:
    model.eval()
    for batch in DataLoader(held_out(task), BATCH_SIZE):
        loss(model, batch)
    model.train()


def seed_generators(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def generators() -> tuple[Any, ...]:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()


def set_generators(states: tuple[Any, ...]) -> None:
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
