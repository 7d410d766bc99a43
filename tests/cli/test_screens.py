"""Tables in narrow and wide terminals, in pipes, and without colours."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processes
import pytest
import torch

from functrain.checkpoint import Checkpoints
from functrain.cli import output

Run = Callable[..., Any]
NUMBER = re.compile(r"^[-+]?[0-9][-+0-9.,:e]*$|=")
METRICS = {"eval/loss": 0.0185912, "eval/ema/accuracy": 0.99444, "eval/ema/loss": 0.018}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    store = Checkpoints(tmp_path / "runs" / "a")
    for step, scale in ((115, 1.0), (200, 3.0)):
        names = ("features.0.weight", "features.8.num_batches_tracked", "head.bias")
        params = {name: scale * torch.arange(12345.0) for name in names}
        tree = {"train": {"params": params, "buffers": {"n": torch.tensor(7)}}, "at": {"x": "y"}}
        store.save(tree, step=step, metrics=METRICS)
    return store.directory


def terminal(width: int, *arguments: object, new: bool = False, **environment: str) -> bytes:
    """Run a command in a terminal of its own, in a fork or in a new interpreter."""
    screen, end = pty.openpty()
    variables = {**os.environ, "COLUMNS": str(width), "TERM": "xterm-256color", **environment}
    words = ["-m", "functrain", *map(str, arguments)]
    child: subprocess.Popen[bytes] | processes.Child
    if new:
        child = subprocess.Popen([sys.executable, *words], env=variables, stdout=end, stderr=end)
    else:
        name = os.ttyname(end)
        child = processes.Child(*words, env=variables, stdout=name, stderr=name)
    os.close(end)
    shown = b""
    try:
        while part := os.read(screen, 1 << 16):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(screen)
    child.wait()
    return shown


@pytest.mark.parametrize("width", [40, 60, 80, 140])
@pytest.mark.parametrize(
    "command",
    [
        ["ls", "RUN"],
        ["ls", "RUN/.."],
        ["show", "RUN"],
        ["show", "RUN", "--stats"],
        ["verify", "RUN"],
        ["prune", "RUN", "--keep-last", "1", "--dry-run"],
    ],
    ids=str,
)
def test_a_table_fits_and_loses_no_digit(
    functrain: Run, run: Path, command: list[str], width: int
) -> None:
    words = [word.replace("RUN", str(run)) for word in command]
    whole = functrain(*words, width=400).out.split()
    lines = functrain(*words, width=width).out.splitlines()
    table = lines[next(n for n, line in enumerate(lines) if line.startswith("──")) :]
    assert all(len(line.rstrip()) <= width for line in table)
    if width >= 60 and command[0] != "verify":  # whose times vary
        cut = [word for line in table for word in line.split() if word not in whole]
        assert [word for word in cut if NUMBER.search(word)] == []


def test_metrics_wrap_by_name(functrain: Run, run: Path) -> None:
    shown = functrain("ls", run, width=60).out
    assert {"eval/loss=0.01859", "eval/ema/accuracy=0.9944"} <= set(shown.split())
    assert "narrow terminal: without" in shown
    assert "leaves" in shown.splitlines()[-1]
    assert "narrow" not in functrain("ls", run, width=140).out


def test_a_pipe_has_one_line_for_each_row(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    output.print_table(output.console(), "ab", [("1", "word " * 100)], folded=("b",))
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize("text", ["pip install 'functrain[plot]'", "runs/[red]", "a:smile:b"])
def test_brackets_and_colons_are_plain_text(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    output.console().print(text)
    output.print_table(output.console(), "a", [(text,)])
    assert capsys.readouterr().out.count(text) == 2


@pytest.mark.sweep
@pytest.mark.parametrize("command", ["ls", "show"])
def test_no_color_is_plain_text(run: Path, command: str) -> None:
    assert b"\x1b[1m" in terminal(80, command, run)
    assert b"\x1b" not in terminal(80, command, run, NO_COLOR="1")


def test_help_without_color_is_plain_text() -> None:
    # It looks at the environment when it is imported.
    assert b"\x1b" in terminal(80, "--help", new=True)
    shown = terminal(80, "--help", new=True, NO_COLOR="1")
    assert b"\x1b" not in shown
    assert b"Usage: " in shown
    assert b"\x1b" not in terminal(80, "ls", "--mode", new=True, NO_COLOR="1")
