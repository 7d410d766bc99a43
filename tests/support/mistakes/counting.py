"""A run that counts outside its state. Fresh processes load it, so it imports no test module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import functrain as ft

CALLS = [0]


def counting(model: nn.Module, batch: Tensor) -> Tensor:
    CALLS[0] += 1
    return model(batch).square().mean() * (1 + CALLS[0])


def make() -> dict[str, Any]:
    program = ft.program(lambda: nn.Linear(4, 1), counting, ft.optim.SGD(lr=0.1))
    data = ft.data.Batches(torch.linspace(-1, 1, 32).reshape(8, 4), batch_size=2)
    return {"program": program, "data": data}
