"""Rows 32 and 34 with every listener: interruptions leave no trace in state, log or files."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as Terminal
from small_runs import CutAt, FailAt, X, fit, program

from functrain import tree
from functrain.errors import ListenerError
from functrain.listeners import (
    CSV,
    JSONL,
    Console,
    Every,
    GradientMonitor,
    Profiler,
    ProgressBar,
    SampleText,
    Sink,
    TensorBoard,
    UpdateMonitor,
)
from functrain.training import dispatch, events

FILES = ("run/metrics.jsonl", "metrics.csv", "some.csv", "some.jsonl", "samples.jsonl")
Make = Callable[[Path], Any]


def text(program: Any, state: Any) -> str:
    with program.evaluating(state) as module:
        return str(module(X[:3]).sum().item())


MAKERS: dict[str, Make] = {
    "gradients": lambda at: GradientMonitor(program(), "3 steps"),
    "updates": lambda at: UpdateMonitor(program(), "2 steps", {"head": "3.*", "body": "*"}),
    "csv": lambda at: CSV(at / "metrics.csv"),
    "some.csv": lambda at: CSV(at / "some.csv", every="0.5 epochs"),
    "jsonl": lambda at: JSONL(at / "some.jsonl", every="3 steps"),
    "samples": lambda at: SampleText(program(), text, path=at / "samples.jsonl"),
    "console": lambda at: Console("verbose", every="2 steps", file=StringIO()),
    "bar": lambda at: ProgressBar(Terminal(file=StringIO(), force_terminal=True)),
    "profiler": lambda at: Profiler(at / "profile", wait=1, warmup=1, active=1),
    "every": lambda at: Every("4 steps", lambda state: random.random()),
}


def contents(directory: Path) -> dict[str, bytes]:
    found = [directory / name for name in FILES]
    return {str(file.relative_to(directory)): file.read_bytes() for file in found if file.exists()}


def resumed(directory: Path, names: list[str], cuts: list[int], save_every: str) -> Any:
    """Interrupt by a listener and by an error in turn, each time with new objects."""
    directory.mkdir()

    def made() -> list[Any]:
        return [MAKERS[name](directory) for name in names]

    options: Any = {"directory": directory / "run", "save_every": save_every}
    for number, cut in enumerate(cuts):
        try:
            fit([*made(), (CutAt, FailAt)[number % 2](cut)], **options)
        except ListenerError as error:
            assert "cut" in str(error)
    return fit(made(), **options)


@pytest.mark.row(32)
@pytest.mark.row(34)
@pytest.mark.parametrize("seed", range(5))
def test_interrupted_runs_end_in_the_same_bytes_with_any_listeners(
    tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    names = list(MAKERS) if seed == 0 else draw.sample(list(MAKERS), draw.randint(2, 7))
    names.sort(key=list(MAKERS).index)  # monitors before sinks
    cuts = sorted(draw.sample(range(1, 20), draw.randint(1, 4)))
    save_every = f"{draw.randint(1, 7)} steps"
    straight = resumed(tmp_path / "a", names, [], "3 steps")
    cut = resumed(tmp_path / "b", names, cuts, save_every)
    setting = (names, cuts, save_every)
    assert tree.diff(straight.state, cut.state) == [], setting
    assert straight.history.rows == cut.history.rows, setting
    assert contents(tmp_path / "a") == contents(tmp_path / "b"), setting
    plain = fit()
    assert tree.diff(straight.state, plain.state) == [], setting


class Nowhere:
    """A destination that takes no time."""

    def open(self, after: int, run: str | None) -> None:
        return None

    def write(self, rows: list[Any]) -> None:
        pass

    flush = close = lambda self: None


@pytest.mark.slow
@pytest.mark.row(41)
def test_all_listeners_with_nothing_to_do_cost_little(tmp_path: Path) -> None:
    """Calls are counted, since seconds depend on the machine; it is 5 us on a quiet one."""
    pytest.importorskip("tensorboard")
    made, far = program(), "100000 steps"
    listeners = [
        GradientMonitor(made, far),
        UpdateMonitor(made, far),
        *(MAKERS[name](tmp_path) for name in ("bar", "profiler")),
        Console(every=far, file=StringIO()),
        SampleText(made, text, every=far),
        Every(far, lambda state: None),
        CSV(tmp_path / "a.csv", every=far),
        JSONL(tmp_path / "a.jsonl", every=far),
        TensorBoard(tmp_path / "board", every=far),
        Sink(Nowhere(), "nowhere", every=far),
    ]
    state = made.init()
    state, metrics = made.train_step(state, (X[:4], X[:4, :1]))
    sending = dispatch.Listeners.of(listeners)
    sending.emit(events.TrainBegin(state, 10_000, 100, None))
    for _ in range(8):  # the profiler stops
        sending.emit(events.BatchEnd(state, metrics))
    assert _calls(sending, state, metrics) <= 4 * len(listeners)


def _calls(sending: dispatch.Listeners, state: Any, metrics: Any) -> int:
    """Return how many functions of Python and of C one step calls."""
    found: list[str] = []
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, called: found.append(event))
    try:
        sending.emit(events.BatchBegin(state, None))
        sending.emit(events.BatchEnd(state, metrics))
    finally:
        sys.setprofile(before)
    return sum(event in ("call", "c_call") for event in found)
