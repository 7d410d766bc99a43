"""Trainers with a loop or a step of their own, configured for speed as documented.

All of them get fused AdamW, and neither logs, checkpoints nor shows progress.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from torch import Tensor

from benchmarks.steps.feed import Feed, Loader
from benchmarks.steps.work import LEARNING_RATE, Work


def _optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)


def lightning(work: Work, feed: Feed) -> None:
    """Run the Trainer in its barebones mode, which exists to measure its overhead."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = work.model()

        def training_step(self, batch: Any, index: int) -> Tensor:
            loss = work.loss(self.model, batch)
            feed.losses.append(loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return _optimizer(self)

    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        barebones=True,
        accumulate_grad_batches=work.accumulate,
    )
    trainer.fit(Module(), Loader(feed, work.parts()))


def fabric(work: Work, feed: Feed) -> None:
    """Run a plain loop with Fabric's model, optimizer and backward."""
    import lightning

    shell = lightning.Fabric(accelerator="cpu", devices=1)
    model = work.model()
    model, optimizer = shell.setup(model, _optimizer(model))
    parts, share = work.parts(), 1 / work.accumulate
    for batch in feed:
        optimizer.zero_grad()
        for part in parts if share < 1 else (batch,):
            loss = work.loss(model, part)
            shell.backward(loss * share if share < 1 else loss)
            feed.losses.append(loss)
        optimizer.step()


def ignite(work: Work, feed: Feed) -> None:
    """Run an engine around the plain step, without handlers."""
    from ignite.engine import Engine

    model = work.model()
    optimizer = _optimizer(model)
    parts, share = work.parts(), 1 / work.accumulate

    def step(engine: Any, batch: Any) -> Tensor:
        optimizer.zero_grad()
        for part in parts if share < 1 else (batch,):
            loss = work.loss(model, part)
            (loss * share if share < 1 else loss).backward()
            feed.losses.append(loss)
        optimizer.step()
        return loss

    loader = Loader(feed)
    Engine(step).run(loader, max_epochs=1, epoch_length=len(loader))


def accelerate(work: Work, feed: Feed) -> None:
    """Run a plain loop with the objects that ``prepare`` returns."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=work.accumulate)
    model = work.model()
    model, optimizer = accelerator.prepare(model, _optimizer(model))
    parts = work.parts()
    for batch in feed:
        if work.accumulate == 1:
            loss = work.loss(model, batch)
            accelerator.backward(loss)
            feed.losses.append(loss)
            optimizer.step()
            optimizer.zero_grad()
            continue
        for part in parts:
            with accelerator.accumulate(model):
                loss = work.loss(model, part)
                accelerator.backward(loss)
                feed.losses.append(loss)
                optimizer.step()
                optimizer.zero_grad()


def torchopt(work: Work, feed: Feed) -> None:
    """Run ``torch.func.functional_call`` and TorchOpt's functional AdamW, in place if possible.

    Its accelerated operators are not used: the compiled extension of version 0.7.3 cannot be
    imported beside torch 2.13 (an undefined symbol).
    """
    import torchopt

    model = work.model()
    params = dict(model.named_parameters())
    buffers = dict(model.named_buffers())
    optimizer = torchopt.adamw(lr=LEARNING_RATE, weight_decay=1e-2)
    moments = optimizer.init(params)

    def call(inputs: Tensor) -> Tensor:
        return torch.func.functional_call(model, {**params, **buffers}, (inputs,))

    parts = work.parts()
    for batch in feed:
        grads: dict[str, Tensor] = {}
        for part in parts if work.accumulate > 1 else (batch,):
            loss = work.loss(call, part)
            feed.losses.append(loss)
            found = torch.autograd.grad(
                loss / work.accumulate if work.accumulate > 1 else loss, tuple(params.values())
            )
            grads = _added(grads, dict(zip(params, found, strict=True)))
        updates, moments = optimizer.update(grads, moments, params=params, inplace=True)
        params = torchopt.apply_updates(params, updates, inplace=True)


def _added(total: dict[str, Tensor], more: dict[str, Tensor]) -> dict[str, Tensor]:
    for name, tensor in total.items():
        more[name].add_(tensor)
    return more
