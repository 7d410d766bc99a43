"""The line on the terminal while a step compiles."""

from __future__ import annotations

import io
import threading
from contextlib import redirect_stderr
from typing import Any

import pytest
import torch
from compiling import mean_square
from rich.console import Console
from rich.live import Live
from torch import nn

import functrain as ft
from functrain.transforms.graph import capture, lowering, waiting
from functrain.transforms.graph.waiting import waiting_line


class Terminal(io.StringIO):
    """A stream to a terminal that says when something was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        count = super().write(text)
        self.written.set()
        return count


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def test_it_says_what_and_how_long_and_is_erased(terminal: Terminal) -> None:
    with redirect_stderr(terminal), waiting_line("compiling 3 operations", quiet=0):
        assert terminal.written.wait(60)
    assert terminal.getvalue().startswith("\r\x1b[2Kcompiling 3 operations, 0 s")
    assert terminal.getvalue().endswith("\r\x1b[2K")
    assert "\n" not in terminal.getvalue()


def test_it_is_erased_after_an_error(terminal: Terminal) -> None:
    def divide() -> None:
        with redirect_stderr(terminal), waiting_line("dividing", quiet=0):
            assert terminal.written.wait(60)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        divide()
    assert terminal.getvalue().endswith("\r\x1b[2K")


def test_what_ends_soon_is_not_shown(terminal: Terminal) -> None:
    with redirect_stderr(terminal), waiting_line("compiling", quiet=3600):
        pass
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_nothing_is_shown_without_a_terminal(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    stream = Terminal() if term == "dumb" else io.StringIO()
    monkeypatch.setenv("TERM", term)
    before = threading.active_count()
    with redirect_stderr(stream), waiting_line("compiling", quiet=0):
        assert threading.active_count() == before
    assert stream.getvalue() == ""


def test_it_passes_through_a_live_bar(terminal: Terminal) -> None:
    console = Console(file=terminal, force_terminal=True)
    with redirect_stderr(terminal), Live("bar", console=console, auto_refresh=False):
        terminal.written.clear()
        with waiting_line("compiling", quiet=0):
            assert terminal.written.wait(60)
        assert "compiling, 0 s" in terminal.getvalue()


def test_a_step_says_that_it_is_captured_and_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def recorded(what: str) -> Any:
        said.append(what)
        return waiting_line(what)

    for module in (capture, lowering):
        monkeypatch.setattr(module, "waiting_line", recorded)

    eager = ft.program(nn.Linear(3, 2), mean_square, ft.optim.SGD(0.1))
    program = ft.compiled(eager, backend="eager")
    program.warm(program.init(), torch.ones(4, 3))
    assert said[0] == "recording the operations of a step"
    assert said[1].startswith("compiling ")
    assert said[1].endswith(" operations")
    assert waiting._QUIET == 2
