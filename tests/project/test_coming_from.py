"""The pages for users of other libraries run with that library, and both sides end alike."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

PAGES = Path(__file__).parents[2] / "docs" / "from"
Weights = dict[str, torch.Tensor]


def lightning(names: dict[str, Any]) -> tuple[Weights, Weights]:
    return dict(names["module"].net.named_parameters()), names["run"].state.params


def flax(names: dict[str, Any]) -> tuple[Weights, Weights]:
    ours = names["same"].params
    trained = names["state_of_flax"].params
    theirs = [
        torch.tensor(names["np"].array(trained[layer][name]).T)
        for layer in ("Dense_0", "Dense_1")
        for name in ("kernel", "bias")
    ]
    return dict(zip(("0.weight", "0.bias", "2.weight", "2.bias"), theirs, strict=True)), ours


COMPARED: dict[str, tuple[str, Callable[[dict[str, Any]], tuple[Weights, Weights]]]] = {
    "lightning": ("lightning", lightning),
    "jax": ("flax", flax),
}


def run(page: str) -> dict[str, Any]:
    """Run every block of a page, the other library's too."""
    text = (PAGES / f"{page}.md").read_text()
    names: dict[str, Any] = {}
    for title, block in re.findall(r'```python(?: title="(\w+)")?\n(.*?)```', text, re.DOTALL):
        exec(compile(block, page, "exec"), names)
        if title == "Flax":
            names.setdefault("state_of_flax", names["state"])  # ours has the same name
    return names


@pytest.mark.slow
@pytest.mark.parametrize("page", COMPARED)
@pytest.mark.filterwarnings("ignore::Warning:lightning", "ignore::Warning:torch")
def test_both_sides_of_a_page_end_in_the_same_weights(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, weights = COMPARED[page]
    pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    theirs, ours = weights(run(page))
    assert theirs.keys() == ours.keys()
    for name in ours:
        torch.testing.assert_close(theirs[name].detach(), ours[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_both_sides_of_the_page_on_the_trainer_learn_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    names = run("transformers")
    theirs = [row["eval_loss"] for row in names["trainer"].state.log_history if "eval_loss" in row]
    ours = names["run"].history["eval/loss"]
    assert names["trainer"].state.global_step == names["run"].state.counters.step == 12
    assert ours == pytest.approx(theirs, abs=0.02)
    assert (tmp_path / "runs" / "bert" / "pretrained" / "config.json").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_both_sides_of_the_page_on_keras_have_the_same_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip("keras")
    monkeypatch.chdir(tmp_path)
    names = run("keras")
    theirs, ours = names["history"].history, names["same"].history
    assert ours["eval/loss"] == pytest.approx(theirs["val_loss"], abs=2e-3)
    assert ours["eval/accuracy"] == pytest.approx(theirs["val_accuracy"], abs=0.02)
