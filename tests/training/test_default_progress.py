"""``fit`` shows a bar where a person looks, and acknowledges an interrupt."""

from __future__ import annotations

import os
import pty
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import Child
from rich.console import Console
from torch import nn

import functrain as ft
from functrain.training.progress.bar import default_bar
from functrain.training.progress.line import Line, short
from functrain.training.signals import Interrupts

RUN = """
import sys, functrain as ft, torch
def loss(model, x):
    print("from the loss")
    return model(x).square().mean()
program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
data = [torch.ones(4, 2)] * 2
ft.fit(program, data, until="3 epochs", eval_data=data, progress={progress})
"""


def on_a_terminal(progress: str) -> tuple[str, str]:
    """Run a program with its standard error on a terminal; return what it wrote there, and out."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    code = RUN.format(progress=progress)
    process = Child("-c", code, env=environment, stderr=os.ttyname(theirs))
    os.close(theirs)
    shown: list[bytes] = []

    def read() -> None:
        while True:
            try:
                shown.append(os.read(ours, 4096))
            except OSError:  # the other end is closed
                return

    reading = threading.Thread(target=read)
    reading.start()
    assert process.wait() == 0
    reading.join()
    os.close(ours)
    out = process.output.read_text()
    return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", b"".join(shown).decode()), out


@pytest.mark.slow
def test_a_terminal_shows_a_bar_and_a_line_for_each_evaluation() -> None:
    shown, out = on_a_terminal("None")
    assert "epoch 3" in shown
    assert "6/6" in shown
    assert "samples/s" in shown
    for step in (2, 4, 6):
        assert f"step {step}  eval: loss" in shown
    # A line printed to a file reaches it, although the bar is on a terminal.
    assert out.count("from the loss") == 12
    assert "from the loss" not in shown


@pytest.mark.slow
@pytest.mark.long
def test_a_bar_can_be_switched_off() -> None:
    assert on_a_terminal("False")[0] == ""


def fit(**options: Any) -> ft.Run:
    program = ft.program(nn.Linear(2, 1), lambda m, x: m(x).square().mean(), ft.optim.SGD(lr=0.1))
    data = [torch.ones(4, 2)] * 2
    return ft.fit(program, data, until="2 epochs", eval_data=data, **options)


def test_nothing_is_shown_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    fit()
    assert capfd.readouterr() == ("", "")


def test_on_request_a_file_gets_a_line_for_each_evaluation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fit(progress=True)
    written = capsys.readouterr()
    assert [line.split("  ")[0] for line in written.err.splitlines()] == ["step 2", "step 4"]
    assert written.out == ""


class Watched:
    def isatty(self) -> bool:
        return True


def test_a_listener_that_shows_progress_replaces_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Watched())
    monkeypatch.setenv("TERM", "xterm")
    assert len(default_bar(None, [])) == 1
    assert default_bar(None, [ft.listeners.Console()]) == []
    assert default_bar(None, [ft.listeners.ProgressBar()]) == []
    assert len(default_bar(True, [ft.listeners.Console()])) == 1
    given = iter([ft.listeners.Console()])
    default_bar(None, given)
    assert len(list(given)) == 1
    assert default_bar(False, []) == []
    monkeypatch.setenv("TERM", "dumb")
    assert default_bar(None, []) == []


def test_runs_of_other_threads_share_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Watched())
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(default_bar(None, [])))
    thread.start()
    thread.join()
    assert found == [[]]


LINE = Line(
    step=450,
    steps=1000,
    epoch=3,
    metrics=("loss 0.4123", "accuracy 0.81"),
    evaluation="eval: loss 0.5  accuracy 0.8",
    speed=12345.0,
    seconds=75.0,
)


def rendered(line: Line, width: int) -> str:
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as captured:
        console.print(line)
    return captured.get()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 160])
def test_the_line_fits_any_width_and_keeps_what_says_most(width: int) -> None:
    text = rendered(LINE, width)
    assert text.count("\n") == 1
    assert len(text.rstrip()) <= width
    assert "450/1000" in text
    assert ("loss 0.4123" in text) == (width >= 40)
    assert ("0:01:15 left" in text) == (width >= 60)
    assert ("eval: loss 0.5" in text) == (width >= 120)


def test_a_wide_line_has_everything() -> None:
    text = rendered(LINE, 160)
    for part in ("epoch 3", "loss 0.4123", "accuracy 0.81", "eval: loss 0.5", "12.3k samples/s"):
        assert part in text


def test_speeds_have_three_digits() -> None:
    assert [short(x) for x in (0.0, 999.4, 999.6, 1.5e6)] == ["0", "999", "1k", "1.5M"]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Give SIGINT Python's own handler, which it lacks where a shell started the tests by ``&``."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_is_acknowledged_at_once_and_once(capfd: pytest.CaptureFixture[str]) -> None:
    with Interrupts("finishing the step, then saving"):
        signal.raise_signal(signal.SIGINT)
        text = "SIGINT: finishing the step, then saving; Ctrl-C again to stop now\n"
        assert capfd.readouterr().err == text
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err == ""


def test_a_rank_of_torchrun_says_how_long_it_has(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}.items():
        monkeypatch.setenv(name, value)
    with Interrupts("finishing the step, then saving"):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # torchrun and the system may send one each
    text = "SIGTERM: finishing the step, then saving; another signal after 1 s to stop now"
    killed = "torchrun kills ranks that take over 30 s"
    assert capfd.readouterr().err == f"{text}; {killed}\n"
    with Interrupts():  # of another rank
        signal.raise_signal(signal.SIGTERM)
    assert capfd.readouterr().err == ""


def test_a_run_says_whether_it_saves(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Pressing:
        def on_batch_end(self, event: Any) -> None:
            signal.raise_signal(signal.SIGINT)

    assert fit(listeners=[Pressing()]).reason == "interrupted"
    assert "SIGINT: finishing the step; Ctrl-C again" in capfd.readouterr().err
    assert fit(listeners=[Pressing()], directory=tmp_path).reason == "interrupted"
    assert "SIGINT: finishing the step, then saving; Ctrl-C" in capfd.readouterr().err
