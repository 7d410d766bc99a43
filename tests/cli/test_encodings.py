"""The output of the command line where the encoding lacks some characters."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console
from small_runs import X, Y, loss, model

import functrain as ft
from functrain.cli import output, seeds
from functrain.listeners import ProgressBar

Run = Callable[..., Any]


def ascii_output(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """Replace the standard output, which pytest does itself before a test begins."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    return raw


def test_tables_lines_and_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    written = ascii_output(monkeypatch)
    output.print_in_any_encoding()
    runs = {str(s): {"metrics": {"eval/µ": s}, "reason": "max_steps", "step": 1} for s in (1, 2)}
    seeds.print_spread(runs, "name", output.console())
    output.print_lines(output.console(), "└── runs/a", "日本")
    output.print_json({"µ": 1})
    shown = written.getvalue().decode("ascii")
    assert "1.5 +- 0.7071" in shown
    assert "`--" in shown
    assert r'"\u00b5": 1' in shown


def test_progress_and_listeners(monkeypatch: pytest.MonkeyPatch) -> None:
    written = ascii_output(monkeypatch)

    def named(module: Any, batch: Any) -> ft.Loss:
        return ft.Loss(loss(module, batch).value, metrics={"µ": 0.5})

    program = ft.program(model, named, ft.optim.Adam(lr=0.01))
    bar = ProgressBar(Console(force_terminal=True, width=20))
    texts = ft.listeners.SampleText(program, lambda *_: "été", every="1 step")
    lines = ft.listeners.Console("verbose", every="1 step")
    for one in (bar, lines, texts):
        listeners = [one]
        ft.fit(program, [(X, Y)], until="2 steps", eval_data=[(X, Y)], listeners=listeners)
    assert rb"\u00b5 0.5" in written.getvalue()
    assert rb"\u00e9t\u00e9" in written.getvalue()
