"""Lightning's Trainer, resumed from the last of the checkpoints that ModelCheckpoint writes."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from benchmarks.proof.tasks import BATCH_SIZE, EPOCHS, Net, Task, loss
from benchmarks.proof.torch_parts import (
    held_out_loader,
    optimizer_and_scheduler,
    training_loader,
    world,
)


class Module(L.LightningModule):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.net, self.task = Net(task), task

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return loss(self.net, batch)

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", loss(self.net, batch))

    def configure_optimizers(self) -> Any:
        optimizer, scheduler = optimizer_and_scheduler(self, self.task)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def train(task: Task, directory: Path) -> dict[str, torch.Tensor]:
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    L.seed_everything(0, workers=True, verbose=False)
    module = Module(task)
    keeping = ModelCheckpoint(
        directory, every_n_train_steps=task.save_every_updates, save_top_k=-1, save_last=True
    )
    trainer = L.Trainer(
        accelerator="cpu",
        devices=world(),
        strategy="ddp" if world() > 1 else "auto",
        max_epochs=EPOCHS,
        accumulate_grad_batches=task.accumulate,
        callbacks=[keeping],
        default_root_dir=directory,
        deterministic=True,
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=False,
        num_sanity_val_steps=0,
        val_check_interval=task.evaluate_every or None,
    )
    training = training_loader(task, BATCH_SIZE // world())
    held = held_out_loader(task) if task.evaluate_every else None
    begun = (directory / "last.ckpt").exists()
    trainer.fit(module, training, held, ckpt_path="last" if begun else None, weights_only=False)
    return dict(module.net.state_dict())
