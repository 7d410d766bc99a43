"""Lightning's Trainer, resumed from the last of the checkpoints that ModelCheckpoint writes."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
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


class Module(L.LightningModule):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.net, self.task = Net(task), task

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return loss(self.net, batch)

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", loss(self.net, batch))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=RATE)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: rate(self.task, at))
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
    training = DataLoader(Points(task), BATCH_SIZE, shuffle=True, num_workers=task.workers)
    held = DataLoader(held_out(task), BATCH_SIZE) if task.evaluate_every else None
    begun = (directory / "last.ckpt").exists()
    trainer.fit(module, training, held, ckpt_path="last" if begun else None, weights_only=False)
    return dict(module.net.state_dict())
