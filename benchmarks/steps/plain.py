"""The plain PyTorch loop: the baseline, and compiled forms of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.steps.feed import Feed
from benchmarks.steps.work import LEARNING_RATE, Loss, Work


def plain(work: Work, feed: Feed) -> None:
    """Train with backward, fused AdamW and zero_grad."""
    model = work.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    _loop(work, feed, model, work.loss, optimizer, optimizer.step)


def checked(work: Work, feed: Feed) -> None:
    """Train the same way, with the gradient norm and finite check of every functrain step."""
    model = work.model()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=True)

    def update() -> None:
        norm = nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])
        if not norm.isfinite():
            raise FloatingPointError(f"the gradients have the norm {norm}")
        optimizer.step()

    _loop(work, feed, model, work.loss, optimizer, update)


def compiled(work: Work, feed: Feed) -> None:
    """Train with loss and backward compiled as one graph each, and fused AdamW."""
    model = work.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    _loop(work, feed, model, torch.compile(work.loss), optimizer, optimizer.step)


def compiled_optimizer(work: Work, feed: Feed) -> None:
    """Train the same way with a compiled foreach optimizer, as in torch's tutorial."""
    model = work.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, foreach=True)
    update = torch.compile(lambda: optimizer.step())
    _loop(work, feed, model, torch.compile(work.loss), optimizer, update)


def _loop(
    work: Work,
    feed: Feed,
    model: nn.Module,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    update: Any,
) -> None:
    """Run the loop shared by all of them; a single micro-batch needs no division."""
    parts, share = work.parts(), 1 / work.accumulate
    for batch in feed:
        optimizer.zero_grad()
        if share == 1:
            value = loss(model, batch)
            value.backward()
            feed.losses.append(value)
        else:
            feed.losses += [_backward(loss(model, part), share) for part in parts]
        update()


def _backward(value: Tensor, share: float) -> Tensor:
    (value * share).backward()
    return value
