"""Progress: a bar on a terminal, lines in a file."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from rich.console import Console
from torch import nn

import functrain as ft
from functrain.listeners import ProgressBar
from functrain.training import events
from functrain.training.progress.output import NotebookDisplay


def run(console: Console, until: str = "8 steps", **options: Any) -> ft.Run:
    loss = lambda model, x: model(x).square().mean()  # noqa: E731
    torch.manual_seed(0)
    program = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
    data = [torch.ones(4, 2)] * 4
    listeners = [ProgressBar(console)]
    return ft.fit(program, data, until=until, eval_data=data, listeners=listeners, **options)


@pytest.mark.row(42)
def test_without_a_terminal_each_evaluation_prints_a_line() -> None:
    file = io.StringIO()
    run(Console(file=file, width=100))
    lines = file.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 4", "step 8"]
    assert "\x1b" not in file.getvalue()


@pytest.mark.row(42)
def test_an_evaluation_of_both_weights_prints_one_line() -> None:
    file = io.StringIO()
    program = ft.program(nn.Linear(2, 1), lambda model, x: model(x).mean(), ft.optim.SGD(), ema=0.5)
    data = [torch.ones(4, 2)] * 2
    listeners = [ProgressBar(Console(file=file, width=100))]
    sets = {"near": data, "far": data}
    run = ft.fit(program, data, until="4 steps", eval_data=sets, listeners=listeners)
    lines = file.getvalue().splitlines()
    assert [re.sub(r" loss \S+", "", line) for line in lines] == [
        f"step {step}  {name}:  ema:" for step in (2, 4) for name in ("near", "far")
    ]
    assert lines[2].endswith(f"ema: loss {run.history['near/ema/loss'][-1]:.4g}")


@pytest.mark.row(42)
def test_on_a_terminal_the_bar_shows_epoch_steps_and_metrics() -> None:
    file = io.StringIO()
    run(Console(file=file, width=160, force_terminal=True, legacy_windows=False))
    text = file.getvalue()
    assert "8/8" in text
    assert "epoch 2" in text
    assert "eval: loss" in text


@pytest.mark.row(42)
def test_a_resumed_run_names_its_checkpoint_without_the_whole_path(tmp_path: Path) -> None:
    options = {"directory": tmp_path / "run", "save_every": "4 steps"}
    run(Console(file=io.StringIO()), **options)
    file = io.StringIO()
    run(Console(file=file, width=200), until="12 steps", **options)
    assert "continuing from step 8 (run/step-00000008)\n" in file.getvalue()


@pytest.mark.row(42)
def test_it_does_not_change_training() -> None:
    with_it = run(Console(file=io.StringIO(), force_terminal=True))
    loss = lambda model, x: model(x).square().mean()  # noqa: E731
    torch.manual_seed(0)
    program = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
    without = ft.fit(program, [torch.ones(4, 2)] * 4, until="8 steps")
    assert ft.tree.diff(with_it.state, without.state) == []


@pytest.mark.row(42)
def test_the_terminal_is_released_when_the_run_fails() -> None:
    def failing(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("in the loss")

    file = io.StringIO()
    console = Console(file=file, force_terminal=True, legacy_windows=False)
    program = ft.program(nn.Linear(2, 1), failing, ft.optim.SGD(lr=0.1))
    with contextlib.closing(ProgressBar(console)) as bar, pytest.raises(RuntimeError):
        ft.fit(program, [torch.ones(4, 2)], until="8 steps", listeners=[bar])
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert file.getvalue().rfind(shown) > file.getvalue().rfind(hidden) >= 0


def at(program: ft.Program, step: int) -> Any:
    state = program.init()
    return attrs.evolve(state, counters=attrs.evolve(state.counters, step=step))


@pytest.mark.row(42)
def test_after_resuming_the_time_left_uses_the_speed_of_this_process() -> None:
    now = [0.0]
    file = io.StringIO()
    console = Console(file=file, width=200, force_terminal=True, get_time=lambda: now[0])
    program = ft.program(nn.Linear(2, 1), lambda m, x: m(x).mean(), ft.optim.SGD(lr=0.1))
    bar = ProgressBar(console)
    bar.on_train_begin(events.TrainBegin(at(program, 900), 1000, 10, Path("there")))
    assert "900/1000" in file.getvalue()
    for step in (901, 902, 903):
        now[0] += 2.0
        bar.on_batch_end(events.BatchEnd(at(program, step), {"loss": torch.tensor(0.5)}))
    bar.close()
    assert "903/1000" in file.getvalue()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
    assert "0:03:14 left" in plain  # 97 steps of 2 s, not 903 in 6 s


@pytest.mark.row(42)
def test_a_run_of_unknown_length_has_a_bar() -> None:
    file = io.StringIO()
    loss = lambda model, x: model(x).square().mean()  # noqa: E731
    program = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
    bar = ProgressBar(Console(file=file, width=160, force_terminal=True))
    ft.fit(program, [torch.ones(4, 2)], until="12 samples", listeners=[bar])
    assert "3/?" in file.getvalue()


@pytest.mark.row(42)
def test_live_metrics_include_the_users() -> None:
    file = io.StringIO()

    def loss(model: nn.Module, x: torch.Tensor) -> ft.Loss:
        value = model(x).square().mean()
        return ft.Loss(value, metrics={"accuracy": value * 0 + 0.25})

    program = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
    bar = ProgressBar(Console(file=file, width=160, force_terminal=True))
    ft.fit(program, [torch.ones(4, 2)], until="3 steps", listeners=[bar])
    assert "accuracy 0.25" in file.getvalue()
    assert "grad_norm" not in file.getvalue()


@pytest.mark.row(42)
def test_a_bar_serves_the_run_after_a_failed_one() -> None:
    def failing(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("in the loss")

    file = io.StringIO()
    bar = ProgressBar(Console(file=file, force_terminal=True, legacy_windows=False))
    for _ in range(2):
        program = ft.program(nn.Linear(2, 1), failing, ft.optim.SGD(lr=0.1))
        with pytest.raises(RuntimeError, match="in the loss"):
            ft.fit(program, [torch.ones(4, 2)], until="8 steps", listeners=[bar])
    bar.close()
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert file.getvalue().count(hidden) == file.getvalue().count(shown) == 2


@pytest.mark.row(42)
def test_in_a_notebook_it_updates_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now, shown = [0.0], []
    monkeypatch.setattr(NotebookDisplay, "show", lambda self, text: shown.append(text))
    program = ft.program(nn.Linear(2, 1), lambda m, x: m(x).mean(), ft.optim.SGD(lr=0.1))
    bar = ProgressBar(Console(force_jupyter=True, get_time=lambda: now[0]))
    bar.on_train_begin(events.TrainBegin(at(program, 0), 1000, 10, None))
    for step in range(1, 101):
        now[0] += 0.03
        bar.on_batch_end(events.BatchEnd(at(program, step), {"loss": torch.tensor(0.5)}))
    bar.close()
    assert len(shown) == 1 + 5


@pytest.mark.slow
@pytest.mark.row(42)
def test_a_notebook_shows_the_bar_by_itself_and_without_widgets() -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    code = """
import functrain as ft, torch
program = ft.program(torch.nn.Linear(2, 1), lambda m, x: m(x).mean(), ft.optim.SGD(lr=0.1))
data = [torch.ones(4, 2)] * 4
run = ft.fit(program, data, until="8 steps", eval_data=data)
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=300).execute()
    (output,) = notebook.cells[0].outputs  # one output that is replaced, and no warning
    assert output["output_type"] == "display_data"
    *evaluations, bar = output["data"]["text/plain"].splitlines()
    assert [line.split("  ")[0] for line in evaluations] == ["step 4", "step 8"]
    assert "8/8" in bar
    assert "\x1b" not in output["data"]["text/plain"]
