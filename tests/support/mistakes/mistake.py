"""The class of mistakes, and small parts that many of them share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

import functrain as ft


@attrs.frozen
class Mistake:
    """Code that makes a mistake, and what its message must say.

    Attributes:
        error: the class, an error or a warning.
        make: makes it; may take an empty directory, and what undoes its patches.
        says: a pattern of ``messages.holds``: what was given and where, what is expected or to do.
        slow: whether it starts processes.
    """

    error: type[Exception]
    make: Callable[..., object]
    says: str
    slow: bool = False

    def commit(self, path: Path, patches: pytest.MonkeyPatch) -> None:
        """Make the mistake."""
        count = len(inspect.signature(self.make).parameters)
        self.make(*(path, patches)[:count])


SLOW = True
X = torch.linspace(-1, 1, 32).reshape(8, 4)


def squared(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


def linear() -> nn.Module:
    return nn.Linear(4, 1)


def program(loss: Any = squared, model: Any = linear, **options: Any) -> ft.Program:
    return ft.program(model, loss, options.pop("optimizer", ft.optim.SGD(lr=0.1)), **options)


def step(made: ft.Program, batch: Any = X) -> Any:
    return made.train_step(made.init(), batch)


def batches(rows: int = 8) -> ft.data.Batches:
    return ft.data.Batches(X[:rows], batch_size=2)


def fit(until: str = "4 steps", data: Any = None, **options: Any) -> ft.Run:
    made = options.pop("program", None) or program()
    return ft.fit(made, batches() if data is None else data, until=until, **options)
