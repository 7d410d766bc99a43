"""The page on configuration is correct."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from functrain import config
from functrain.config.schema import RunConfig

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
MODULE = """\
import torch
import functrain as ft
class Net(torch.nn.Linear):
    def __init__(self, width):
        super().__init__(3, 1)
def loss(model, batch):
    return model(batch[0]).square().mean()
def training_data(batch_size, seed=0):
    return ft.data.Batches((torch.randn(64, 3),), batch_size, seed=seed)
def validation_data():
    return training_data(16)
"""
pytestmark = pytest.mark.row(46)


def test_the_file_on_the_page_trains(
    folder: Path, train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (folder / "run.yaml").write_text(block)
    (folder / "mymodel.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "mymodel", raising=False)  # of another test's folder
    run = train()
    assert (run.reason, len(run.history.rows)) == ("max_epochs", 2)
    assert {"quick/loss", "full/ema/loss"} <= set(run.history.names())
    loaded = config.load("run.yaml", ["optimizer=sgd", "schedule@optimizer.lr=linear"])
    assert loaded.config.optimizer["_target_"] == "functrain.optim.SGD"
    assert loaded.config.optimizer["weight_decay"] == 0.1
    assert loaded.config.optimizer["lr"]["_target_"] == "functrain.schedules.Linear"


def test_every_key_is_on_the_page() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert {field.name for field in attrs.fields(RunConfig)} <= documented
