"""Programs that cannot be made."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import functrain as ft
from first_mistakes.parts import First, Net, adamw, program


class Sized(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)


class Listed(nn.Module):
    """Keeps its layers in a list, where torch does not see them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(4, 4)]


def _torch_schedule() -> Any:
    optimizer = torch.optim.SGD(Net().parameters(), 0.1)
    return ft.optim.SGD(lr=torch.optim.lr_scheduler.StepLR(optimizer, 3))  # type: ignore[arg-type]


FIRST = [
    First(
        lambda: program(model=Sized),
        "is missing its arguments width",
        "model: Sized",
        "lambda: Sized(...)",
    ),
    First(
        lambda: program(model=Listed()),
        "no parameter is trainable",
        "the parameters are []",
        "nn.ModuleList",
    ),
    First(
        lambda: program(optimizer=torch.optim.AdamW(Net().parameters())),
        "expected one of functrain.optim",
        "optimizer: ",
        "functrain.optim.AdamW(lr=1e-3)",
    ),
    First(
        lambda: program(optimizer="adamw"), "got 'adamw'", "optimizer: ", "functrain.optim.AdamW("
    ),
    First(
        lambda: program(nn.CrossEntropyLoss()),
        "takes (input, target)",
        "CrossEntropyLoss",
        "def loss(model, batch)",
    ),
    First(
        lambda: program(lambda preds, y: preds - y),
        "takes (preds, y)",
        "<lambda>",
        "def loss(model, batch)",
    ),
    First(lambda: program(trainable=["haed.*"]), "nothing matches", "'haed.*'", "'head.weight'"),
    First(lambda: program(precision="fp8"), "got 'fp8'", "precision: ", "'bf16'"),
    First(lambda: program(ema=2.0), "got 2.0", "EMA: decay", "from 0 to 1"),
    First(lambda: program(accumulate=0), "got 0", "accumulate: ", "an integer >= 1"),
    First(lambda: adamw(lr=-1), "got -1", "AdamW: lr", "number >= 0"),
    First(lambda: adamw(lr="1e-3"), "got '1e-3'", "AdamW: lr", "number >= 0"),
    First(lambda: adamw(betas=0.9), "got 0.9", "AdamW: betas", "two numbers"),
    First(_torch_schedule, "a scheduler of torch", "SGD: lr", "from_torch(lr_scheduler.StepLR"),
    First(
        lambda: program().init({"head.weight": torch.ones(3, 8)}),
        "got a dict",
        "seed",
        "pretrained weights go to params=",
    ),
    First(
        lambda: program().init(params={"head.weigth": torch.ones(3, 8)}),
        "unexpected",
        "'head.weigth'",
        "did you mean 'head.weight'",
    ),
]
