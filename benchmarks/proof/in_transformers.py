"""The Trainer of transformers, resumed from its last checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from benchmarks.proof.tasks import BATCH_SIZE, EPOCHS, Net, Points, Task, held_out, loss
from benchmarks.proof.torch_parts import optimizer_and_scheduler, world


class WithLoss(nn.Module):
    """The network as the Trainer wants it: it returns its loss."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": loss(self.net, (x, labels))}


def collated(samples: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    x, y = zip(*samples, strict=True)
    return {"x": torch.stack(x), "labels": torch.stack(y)}


def train(task: Task, directory: Path) -> dict[str, Tensor]:
    logging.set_verbosity_error()
    set_seed(0)
    model = WithLoss(Net(task))
    arguments = TrainingArguments(
        output_dir=str(directory),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH_SIZE // world(),
        ddp_backend="gloo" if world() > 1 else None,
        gradient_accumulation_steps=task.accumulate,
        dataloader_num_workers=task.workers,
        save_strategy="steps",
        save_steps=task.save_every_updates,
        eval_strategy="steps" if task.evaluate_every else "no",
        eval_steps=max(1, task.evaluate_every // task.accumulate),
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        use_cpu=True,
        seed=0,
    )
    trainer = Trainer(
        model,
        arguments,
        data_collator=collated,
        train_dataset=Points(task),
        eval_dataset=held_out(task),
        optimizers=optimizer_and_scheduler(model, task),
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(directory)))
    return dict(model.net.state_dict())
