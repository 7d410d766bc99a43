"""Several runs in one picture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import functrain as ft
from functrain.errors import ConfigurationError, LogError
from functrain.plotting import compare

pytest.importorskip("matplotlib")


def trained(directory: Path | None, lr: float) -> ft.Run:
    program = ft.program(
        torch.nn.Linear(2, 1), lambda model, x: model(x).square().mean(), ft.optim.SGD(lr=lr)
    )
    return ft.fit(program, [torch.ones(4, 2)], until="3 steps", directory=directory)


def labels(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_directories_and_runs_have_the_names_of_their_directories(tmp_path: Path) -> None:
    small, large = trained(tmp_path / "small", 0.1), trained(tmp_path / "large", 0.2)
    figure = ft.plotting.compare(small, tmp_path / "large", path=tmp_path / "both.svg")
    assert labels(figure) == ["small", "large"]
    losses = [list(line.get_ydata()) for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert small.history["loss"] in losses
    assert large.history["loss"] in losses
    assert re.search(r">small</text>", (tmp_path / "both.svg").read_text())


def test_runs_in_memory_are_numbered_or_have_labels() -> None:
    first, second = trained(None, 0.1), trained(None, 0.2)
    assert labels(compare(first, second.history)) == ["run 1", "run 2"]
    figure = compare({"slow": first, "fast": second}, metrics="loss", x="step", theme="dark")
    assert labels(figure) == ["slow", "fast"]
    assert len(figure.axes) == 1


def test_the_same_run_twice_is_two_runs(tmp_path: Path) -> None:
    trained(tmp_path / "run", 0.1)
    assert len(labels(compare(tmp_path / "run", str(tmp_path / "run")))) == 2


def test_no_run_and_a_run_without_steps_raise(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="at least one run"):
        compare()
    with pytest.raises(LogError, match=r"metrics\.jsonl cannot be read"):
        compare(tmp_path)
    with pytest.raises(LogError, match="'run 1' has no steps"):
        compare([])
    with pytest.raises(ConfigurationError, match="did you mean 'loss'"):
        compare([{"step": 1, "loss": 1.0}], metrics="los")
