"""Helpers for tests of compiled steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import functrain as ft
from functrain import tree


class CountingBackend:
    """A backend that compiles nothing and counts its calls."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.count += 1
        return graph


def mean_square(model: Any, x: Tensor) -> Tensor:
    """A loss of any model that returns a tensor."""
    out: Tensor = model(x)
    return out.square().mean()


def assert_close(found: ft.TrainState, expected: ft.TrainState, rtol: float, atol: float) -> None:
    pairs = zip(tree.items(found), tree.items(expected), strict=True)
    for (path, a), (_, b) in pairs:
        if isinstance(a, Tensor):
            torch.testing.assert_close(a, b, rtol=rtol, atol=atol, msg=lambda m, p=path: f"{p} {m}")
