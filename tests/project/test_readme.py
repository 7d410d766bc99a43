"""The code and the configuration of the README run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import documents
import pytest

README = Path(__file__).parents[2] / "README.md"


def test_python_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    documents.run(README)
    assert "Run(reason='max_epochs', step=160" in capsys.readouterr().out
    assert (tmp_path / "runs" / "first" / "metrics.jsonl").exists()


def test_named_paths_exist() -> None:
    text, root = README.read_text(), README.parent
    for path in re.findall(r"`((?:tests|property_tests|functrain)/[\w/.]*)", text):
        assert (root / path.split("::")[0]).exists(), path


MODULE = """
import torch
import functrain as ft
class Net(torch.nn.Linear):
    def __init__(self, width):
        super().__init__(3, 1)
def loss(model, batch):
    return model(batch[0]).square().mean()
def training_data(batch_size):
    return ft.data.Batches((torch.randn(64, 3),), batch_size)
def validation_data():
    return training_data(16)
"""


def test_the_configuration_builds_and_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from functrain import config, fit

    (block,) = documents.blocks(README, "yaml")
    (tmp_path / "mine.yaml").write_text(block)
    (tmp_path / "mymodel.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "mymodel", raising=False)  # of another test's folder
    loaded = config.load(str(tmp_path / "mine.yaml"))
    with config.importable(loaded):
        built = config.build(loaded.config)
    run = fit(built.program, built.data, until=loaded.config.fit.until, eval_data=built.eval_data)
    assert run.state.counters.epoch == 20
