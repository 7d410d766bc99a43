"""One model of another package, with batches and a loss as its users write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Generator, nn

import functrain as ft


@attrs.frozen
class Entry:
    """A model of the zoo.

    Attributes:
        name: of the architecture.
        make: builds it; random weights are drawn from torch's generator.
        batch: from a number.
        loss: ``loss(model, batch)``.
    """

    name: str
    make: Callable[[], nn.Module]
    batch: Callable[[int], Any]
    loss: Callable[[nn.Module, Any], Any]

    def module(self) -> nn.Module:
        """Return the model, the same one every time."""
        torch.manual_seed(0)
        return self.make()

    def program(self) -> ft.Program:
        """Return a program that trains it with dropout, clipping and an average."""
        optimizer = ft.optim.AdamW(lr=1e-3)
        return ft.program(self.module(), self.loss, optimizer, clip_norm=1.0, ema=0.9)


def seeded(seed: int) -> Generator:
    """Return a generator of its own for one batch."""
    return torch.Generator().manual_seed(seed)
