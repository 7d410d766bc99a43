"""A small run with dropout, an average and evaluations, for tests of listeners."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from ends import CutAt as CutAt
from torch import Tensor, nn

import functrain as ft
from functrain.listeners import Media, Sink

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(30, 4, generator=GENERATOR)
Y = X.sum(1, keepdim=True)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> ft.Loss:
    x, y = batch
    off = F.mse_loss(model(x), y)
    return ft.Loss(off, metrics={"error": off.detach().sqrt()})


def program(**options: Any) -> ft.Program:
    return ft.program(model, loss, ft.optim.Adam(lr=0.01), ema=0.9, clip_norm=1.0, **options)


def data() -> Any:
    return ft.data.Batches((X, Y), batch_size=4, seed=3)


def fit(
    listeners: Sequence[Any] = (),
    *,
    directory: Path | None = None,
    until: str = "20 steps",
    eval_every: str = "5 steps",
    save_every: str = "3 steps",
    **options: Any,
) -> ft.Run:
    """Eight batches per epoch, the last of two samples."""
    return ft.fit(
        program(),
        data(),
        until=until,
        eval_data=[(X[:7], Y[:7])],
        eval_every=eval_every,
        save_every=save_every,
        directory=directory,
        listeners=list(listeners),
        **options,
    )


class FailAt:
    """An error instead of a kill: no ``TrainEnd``, nothing after it."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_begin(self, event: Any) -> None:
        if event.state.counters.step >= self.step:
            raise RuntimeError("cut")


def drawn(_: ft.Program, state: ft.TrainState) -> dict[str, Any]:
    """Return an image and a text that follow from the state, and from drawn numbers."""
    return {"gray": torch.rand(2, 3), "text": f"<b>step {state.counters.step}</b>"}


def with_media(sink: Sink, until: str = "4 steps", **options: Any) -> ft.Run:
    """Log an image and a text at every second step."""
    media = Media(program(), drawn, to=sink, every="2 steps")
    return fit([sink, media], until=until, **options)
