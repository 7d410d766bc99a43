"""A folder of a user with a module and a configuration that trains quickly."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import functrain as ft
from functrain import config

MINIMAL = """\
model: {_target_: torch.nn.Linear, in_features: 2, out_features: 1}
loss: mine.loss
data: {_target_: mine.data}
optimizer: {_target_: functrain.optim.SGD, lr: 0.1}
fit: {until: 3 steps}
"""
MODULE = """\
import torch
import functrain as ft


def loss(model, batch, scale=1.0):
    return scale * model(batch).square().mean()


def data():
    return [torch.ones(4, 2)] * 3


def draws(seed=0, batch_size=4):
    points = torch.randn(16, 2, generator=torch.Generator().manual_seed(seed))
    return ft.data.Batches(points, batch_size, seed=seed)


def fails():
    raise KeyError("no such column")


class Listener:
    def __init__(self, word="none"):
        self.word = word

    def on_train_end(self, event):
        print("listener", self.word)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a folder with ``run.yaml`` and ``mine.py``, and make it the working directory."""
    (tmp_path / "run.yaml").write_text(MINIMAL)
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # of another test's folder
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def train(folder: Path) -> Callable[..., ft.Run]:
    """Load ``run.yaml`` with overrides, build its objects and train."""

    def fit(*overrides: str, source: str = "run.yaml") -> ft.Run:
        loaded = config.load(source, overrides)
        with config.importable(loaded):
            built = config.build(loaded.config)
            arguments = config.fit_arguments(loaded.config, built)
            state, listeners = built.initial(), built.listeners
            return ft.fit(built.program, built.data, state=state, listeners=listeners, **arguments)

    return fit
