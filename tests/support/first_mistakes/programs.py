"""Programs that cannot be made."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import functrain as ft
from first_mistakes.parts import Net, program


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
    (
        lambda: program(model=Sized),
        "model: Sized … is missing its arguments width … lambda: Sized(...)",
    ),
    (
        lambda: program(model=Listed()),
        "no parameter is trainable … the parameters are [] … nn.ModuleList",
    ),
    (
        lambda: program(optimizer=torch.optim.AdamW(Net().parameters())),
        "optimizer: expected one of functrain.optim … got a torch.optim.adamw.AdamW … "
        "functrain.optim.AdamW(lr=1e-3), or functrain.optim.from_torch(",
    ),
    (lambda: program(optimizer="adamw"), "optimizer: … got 'adamw' … functrain.optim.AdamW("),
    (
        lambda: program(nn.CrossEntropyLoss()),
        "takes (input, target) … def loss(model, batch) … CrossEntropyLoss",
    ),
    (
        lambda: program(lambda preds, y: preds - y),
        "takes (preds, y) … def loss(model, batch) … <lambda>",
    ),
    (
        lambda: program(trainable=["haed.*"]),
        "no parameter is trainable: nothing matches … 'haed.*' … 'head.weight'",
    ),
    (lambda: program(precision="fp8"), "precision: … 'float32', 'bf16', 'fp16' … got 'fp8'"),
    (lambda: program(ema=2.0), "EMA: decay … from 0 to 1 … got 2.0"),
    (lambda: program(accumulate=0), "accumulate: … an integer >= 1 … got 0"),
    (lambda: ft.optim.AdamW(lr=-1), "AdamW: lr … number >= 0 … got -1"),
    (lambda: ft.optim.AdamW(lr="1e-3"), "AdamW: lr … number >= 0 … got '1e-3'"),
    (lambda: ft.optim.AdamW(betas=0.9), "AdamW: betas … two numbers … got 0.9"),
    (_torch_schedule, "SGD: lr … a scheduler of torch … from_torch(lr_scheduler.StepLR"),
    (
        lambda: program().init({"head.weight": torch.ones(3, 8)}),
        "seed … got a dict … pretrained weights go to params=",
    ),
    (
        lambda: program().init(params={"head.weigth": torch.ones(3, 8)}),
        "unexpected … 'head.weigth' … did you mean 'head.weight'",
    ),
]
