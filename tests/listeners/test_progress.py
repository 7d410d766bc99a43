"""Progress: a bar for a terminal, lines for a file."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import functrain as ft
from functrain.listeners import ProgressBar


def run(console: Console, **options: Any) -> ft.Run:
    loss = lambda model, x: model(x).square().mean()  # noqa: E731
    torch.manual_seed(0)
    program = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
    data = [torch.ones(4, 2)] * 4
    listeners = [ProgressBar(console)]
    return ft.fit(program, data, until="8 steps", eval_data=data, listeners=listeners, **options)


@pytest.mark.row(42)
def test_without_a_terminal_a_line_an_evaluation() -> None:
    file = io.StringIO()
    run(Console(file=file, width=100))
    lines = file.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 4", "step 8"]
    assert "\x1b" not in file.getvalue()


@pytest.mark.row(42)
def test_on_a_terminal_a_bar_with_epoch_steps_and_metrics() -> None:
    file = io.StringIO()
    run(Console(file=file, width=160, force_terminal=True, legacy_windows=False))
    text = file.getvalue()
    assert "8/8" in text
    assert "epoch 2" in text
    assert "eval: loss" in text


@pytest.mark.row(42)
def test_training_is_the_same_with_it() -> None:
    with_it = run(Console(file=io.StringIO(), force_terminal=True))
    loss = lambda model, x: model(x).square().mean()  # noqa: E731
    torch.manual_seed(0)
    program = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
    without = ft.fit(program, [torch.ones(4, 2)] * 4, until="8 steps")
    assert ft.tree.diff(with_it.state, without.state) == []


@pytest.mark.row(42)
def test_the_terminal_is_given_back_when_the_run_fails() -> None:
    def failing(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("in the loss")

    file = io.StringIO()
    console = Console(file=file, force_terminal=True, legacy_windows=False)
    program = ft.program(nn.Linear(2, 1), failing, ft.optim.SGD(lr=0.1))
    with contextlib.closing(ProgressBar(console)) as bar, pytest.raises(RuntimeError):
        ft.fit(program, [torch.ones(4, 2)], until="8 steps", listeners=[bar])
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert file.getvalue().rfind(shown) > file.getvalue().rfind(hidden) >= 0
