"""Accelerate: its saved state, and the batches that were seen skipped, as its guide says."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
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
    set_seed(0)
    accelerator = Accelerator(
        cpu=True,
        gradient_accumulation_steps=task.accumulate,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
    )
    net = Net(task)
    adamw = torch.optim.AdamW(net.parameters(), lr=RATE)
    scheduler = torch.optim.lr_scheduler.LambdaLR(adamw, lambda update: rate(task, update))
    loader = DataLoader(Points(task), BATCH_SIZE, shuffle=True, num_workers=task.workers)
    held = DataLoader(held_out(task), BATCH_SIZE)
    model, optimizer, loader, held, scheduler = accelerator.prepare(
        net, adamw, loader, held, scheduler
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
                model.eval()
                with torch.no_grad():
                    for batch in held:
                        loss(model, batch)
                model.train()
            if (index + 1) % (task.save_every_updates * task.accumulate) == 0:
                accelerator.save_state(str(directory / f"batch_{index + 1:03}"))
    return dict(accelerator.unwrap_model(model).state_dict())
