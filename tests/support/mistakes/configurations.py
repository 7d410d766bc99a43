"""Mistakes in configurations and searches."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from functrain import config, errors
from mistakes.parts import batches, fit

RUN = """\
model: {_target_: torch.nn.Linear, in_features: 2, out_features: 1}
loss: mine.loss
data: {_target_: mine.data}
optimizer: {_target_: functrain.optim.SGD, lr: 0.1}
fit: {until: 2 steps}
directory: run
"""
MINE = """\
import torch, functrain as ft
loss = lambda model, batch: model(batch).square().mean()
data = lambda: ft.data.Batches(torch.ones(8, 2), 2)
"""


def load(path: Path, old: str, new: str, *overrides: str) -> Any:
    (path / "mine.py").write_text(MINE)
    sys.modules.pop("mine", None)  # of another test's folder
    (path / "run.yaml").write_text(RUN.replace(old, new))
    loaded = config.load(str(path / "run.yaml"), list(overrides))
    with config.importable(loaded):
        return config.build(loaded.config)


def objective(params: dict[str, Any], seed: int, directory: Path, listeners: list[Any]) -> Any:
    return fit("1 step", eval_data=batches(), seed=seed, listeners=listeners)


def search(path: Path, space: Any = None, **options: Any) -> None:
    pytest.importorskip("optuna")
    from functrain.search import search

    given = {"metric": "eval/loss", "directory": path / "s", "trials": 1, "say": lambda line: None}
    search(objective, space or {"lr": {"type": "float", "min": 0, "max": 1}}, **given | options)


def another(path: Path, _: object) -> None:
    search(path)
    search(path, direction="maximize")


MISTAKES = [
    (errors.ConfigError, lambda path: load(path, "fit:", "fti:"), "did you mean 'fit'"),
    (
        errors.ConfigurationError,
        lambda path: search(path, {"lr": {"type": "flaot", "min": 0, "max": 1}}),
        "expected one of",
    ),
]
