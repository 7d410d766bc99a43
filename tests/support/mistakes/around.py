"""Mistakes in generating, searching for a learning rate, logging, and missing packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import errors, generation
from mistakes.parts import batches, fit, program, squared


class Bigram(nn.Module):
    """Logits of the next token from a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens)


def infinite(model: nn.Module, batch: Tensor) -> Tensor:
    return squared(model, batch) / 0


def generate(prompt: object, scale: float = 1.0) -> None:
    made = program(model=Bigram)
    state = made.init(params={"table.weight": torch.ones(4, 4) * scale})
    generation.generate(made, state, prompt, 2)  # type: ignore[call-overload]


def without_pandas(_: Path, patches: pytest.MonkeyPatch) -> None:
    patches.setitem(sys.modules, "pandas", None)
    fit().history.to_pandas()


def unwritable(path: Path, _: object) -> None:
    (path / "log").mkdir()
    fit(listeners=[ft.listeners.JSONL(path / "log")])


MISTAKES = [
    (
        errors.LogitsError,
        lambda: generate(torch.tensor([0]), float("nan")),
        "See whether the weights are finite",
    ),
    (
        errors.FinderError,
        lambda: ft.finders.find_lr(
            program(infinite, nonfinite="ignore"), program().init(), batches()
        ),
        "the loss is not finite at the first step",
    ),
    (errors.MissingExtraError, without_pandas, "pip install 'functrain[pandas]'"),
    (errors.SinkWarning, unwritable, "Training continues, and functrain tries again"),
]
