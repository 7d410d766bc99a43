"""Plain PyTorch, as its tutorial saves a general checkpoint, and as careful as one can be."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler

from benchmarks.proof.tasks import BATCH_SIZE, EPOCHS, Net, Points, Task, loss
from benchmarks.proof.torch_parts import (
    evaluate,
    held_out_loader,
    optimizer_and_scheduler,
    training_loader,
    world,
)


def train(task: Task, directory: Path) -> dict[str, torch.Tensor]:
    """Save model, optimizer, scheduler and position; after a kill, skip the batches seen."""
    return _train(task, directory, careful=False)


def train_carefully(task: Task, directory: Path) -> dict[str, torch.Tensor]:
    """Save every generator as well, and seed the order of each epoch by its number."""
    return _train(task, directory, careful=True)


def _train(task: Task, directory: Path, careful: bool) -> dict[str, torch.Tensor]:
    seed_generators(0)
    net = Net(task)
    optimizer, scheduler = optimizer_and_scheduler(net, task)
    model: Any = net
    if world() > 1:
        dist.init_process_group("gloo")
        model = DistributedDataParallel(net)
    order = torch.Generator() if careful else None
    sampler = sampled(task) if careful or world() > 1 else None
    options = {"sampler": sampler, "shuffle": sampler is None, "generator": order}
    loader = training_loader(task, BATCH_SIZE // world(), **options)
    parts = {"model": net, "optimizer": optimizer, "scheduler": scheduler}
    file, position, saved = directory / "checkpoint.pt", 0, None
    if file.exists():
        saved = torch.load(file, weights_only=False)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        position = saved["position"]
    for epoch in range(position // len(loader), EPOCHS):
        if order is not None:
            order.manual_seed(epoch)
        if sampler is not None:
            sampler.set_epoch(epoch)
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
                evaluate(model, held_out_loader(task))
            if (index + 1) % (task.save_every_updates * task.accumulate) == 0:
                save(parts, index + 1, file)
    return dict(net.state_dict())


def sampled(task: Task) -> DistributedSampler[Any]:
    rank = dist.get_rank() if world() > 1 else 0
    return DistributedSampler(Points(task), world(), rank, seed=0)


def save(parts: dict[str, Any], position: int, file: Path) -> None:
    if world() > 1 and dist.get_rank() > 0:
        return
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save(states | {"position": position, "generators": generators()}, file)


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
