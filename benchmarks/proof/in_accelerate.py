"""Accelerate: its saved state, and the batches that were seen skipped, as its guide says."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed

from benchmarks.proof.tasks import EPOCHS, Net, Task, loss
from benchmarks.proof.torch_parts import (
    evaluate,
    held_out_loader,
    optimizer_and_scheduler,
    training_loader,
)


def train(task: Task, directory: Path) -> dict[str, torch.Tensor]:
    set_seed(0)
    accelerator = Accelerator(
        cpu=True,
        gradient_accumulation_steps=task.accumulate,
        dataloader_config=DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True),
    )
    net = Net(task)
    adamw, schedule = optimizer_and_scheduler(net, task)
    model, optimizer, loader, held, scheduler = accelerator.prepare(
        net, adamw, training_loader(task), held_out_loader(task), schedule
    )
    saved = sorted(directory.glob("batch_*"))
    position = int(saved[-1].name.removeprefix("batch_")) if saved else 0
    if saved:
        accelerator.load_state(str(saved[-1]))
    for epoch in range(position // len(loader), EPOCHS):
        model.train()
        loader.set_epoch(epoch)
        first = max(position, epoch * len(loader))
        rest = accelerator.skip_first_batches(loader, first % len(loader))
        for index, batch in enumerate(rest, start=first):
            with accelerator.accumulate(model):
                accelerator.backward(loss(model, batch))
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            if task.evaluate_every and (index + 1) % task.evaluate_every == 0:
                evaluate(model, held)
            if (index + 1) % (task.save_every_updates * task.accumulate) == 0:
                accelerator.save_state(str(directory / f"batch_{index + 1:03}"))
    return dict(accelerator.unwrap_model(model).state_dict())
