"""The same ten or thirty steps by a torch optimizer class, and by its pure form."""

from __future__ import annotations

import copy
import random
from typing import Any

import torch
from torch import Tensor

from functrain.optim import FromTorch


def draw(seed: int) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {
        "a.weight": torch.randn(4, 3, generator=source),
        "b.weight": torch.randn(3, 5, generator=source),
    }


def lr_of(step: int) -> float:
    return 0.02 / (1 + step)


def run_class(cls: Any, options: dict[str, Any], steps: int) -> dict[str, Tensor]:
    trained = {path: torch.nn.Parameter(param) for path, param in draw(0).items()}
    optimizer = cls(list(trained.values()), lr=0.02, **options)
    if hasattr(optimizer, "train"):
        optimizer.train()
    for step in range(steps):
        grads = draw(step + 1)
        for path, param in trained.items():
            # One parameter is unused in some steps.
            param.grad = None if path == "b.weight" and step % 3 == 0 else grads[path]
        optimizer.param_groups[0]["lr"] = lr_of(step)
        optimizer.step()
    if hasattr(optimizer, "eval"):
        optimizer.eval()
    return {path: param.detach() for path, param in trained.items()}


def grads_at(step: int) -> dict[str, Tensor]:
    grads = draw(step + 1)
    if step % 3 == 0:
        del grads["b.weight"]
    return grads


def run_pure(optimizer: FromTorch, steps: int) -> dict[str, Tensor]:
    chance = random.Random(0)
    params = draw(0)
    state = optimizer.init(params)
    for step in range(steps):
        if chance.random() < 0.3:
            params, state = copy.deepcopy((params, state))
        params, state = optimizer.update(grads_at(step), state, params, lr_of(step))
    return optimizer.eval_params(state, params)


def run_in_place(optimizer: FromTorch, steps: int) -> dict[str, Tensor]:
    params = draw(0)
    state = optimizer.init(params)
    for step in range(steps):
        optimizer.update_(grads_at(step), state, params, lr_of(step))
    return optimizer.eval_params(state, params)
