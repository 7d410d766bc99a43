"""A small run, and a listener that records every event."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import functrain as ft

SAMPLES, SIZE, PER_EPOCH = 22, 4, 6


def columns(samples: int = SAMPLES) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 3, generator=generator)
    return x, (x.sum(1) > 0).long()


def batches(samples: int = SAMPLES, **options: Any) -> ft.data.Batches:
    return ft.data.Batches(columns(samples), SIZE, **options)


def loss(model: nn.Module, batch: Any) -> ft.Loss:
    x, y = batch
    logits = model(x)
    accuracy = (logits.argmax(-1) == y).float().mean()
    return ft.Loss(F.cross_entropy(logits, y), metrics={"accuracy": accuracy})


def program(**options: Any) -> ft.Program:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 2))
    return ft.program(model, loss, options.pop("optimizer", ft.optim.AdamW(lr=0.01)), **options)


class Recorder:
    """Listens to everything."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return self.events.append
        raise AttributeError(name)

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


def rows(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
