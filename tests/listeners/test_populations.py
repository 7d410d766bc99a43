"""Listeners of a population's run: every sink, display and monitor takes metrics of members."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
import rich.console
from populations import batch, program

import functrain as ft
from functrain.errors import ConfigurationError, ListenerError
from functrain.listeners import CSV, JSONL, Console, GradientMonitor, MemoryMonitor, UpdateMonitor
from functrain.metrics.log_file import FILE_NAME
from functrain.training.progress.bar import ProgressBar

DATA = [batch(number) for number in range(2)]


def fit(*listeners: Any, **options: Any) -> ft.Run:
    pop = ft.population(program(), {"lr": [0.01, 0.1, 1e6]})
    return ft.fit(
        pop,
        DATA,
        until="4 epochs",
        eval_data=DATA,
        early_stop=ft.EarlyStop(patience=1),
        listeners=listeners,
        **options,
    )


def test_json_lines_are_those_of_the_log(tmp_path: Path) -> None:
    fit(JSONL(tmp_path / "rows.jsonl"), directory=tmp_path / "run")
    log = (tmp_path / "run" / FILE_NAME).read_bytes()
    assert (tmp_path / "rows.jsonl").read_bytes() == log
    assert b"null" in log


def test_a_table_has_a_column_for_each_member(tmp_path: Path) -> None:
    run = fit(CSV(tmp_path / "rows.csv"))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text())))
    for member in range(3):
        own = run.history.member(member)
        for name in ("loss", "eval/loss", "lr"):
            found = [float(cell) for row in rows if (cell := row[f"{name}/{member}"])]
            assert found == own[name]


def test_tensorboard_has_a_curve_for_each_member(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = fit(ft.listeners.TensorBoard(tmp_path))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = [event.value for event in events.Scalars("loss/2")]
    assert found == pytest.approx(run.history.member(2)["loss"])


@pytest.mark.parametrize("style", ["standard", "verbose"])
def test_the_console_shows_the_best_member_and_the_worst(style: str) -> None:
    lines = io.StringIO()
    run = fit(Console(style, every="1 step", file=lines))
    text = lines.getvalue()
    best, last = run.best["member"], run.history["eval/loss"][0]
    shown = f"eval: loss {min(last):.4g} (member {best}) to {max(last):.4g}"
    assert shown in text
    assert ("stopping member 2: loss has not improved" in text) == (style == "verbose")


def test_the_bar_shows_the_best_member() -> None:
    lines = io.StringIO()
    console = rich.console.Console(file=lines, force_terminal=True, width=200)
    fit(ProgressBar(console))
    assert "(member 1) to" in lines.getvalue()


def test_memory_is_measured_once_for_all_members() -> None:
    run = fit(MemoryMonitor("1 step"))
    names = [name for name in run.history.names() if name.startswith("memory")]
    assert all(isinstance(run.history[0][name], float) for name in names)
    assert names


@pytest.mark.parametrize("monitor", [GradientMonitor, UpdateMonitor])
def test_monitors_of_parameters_refuse_a_population(monitor: Any) -> None:
    pop = ft.population(program(), seeds=[0, 1])
    with pytest.raises(ConfigurationError, match="takes one program, got a population"):
        monitor(pop, "1 step")


@pytest.mark.parametrize("monitor", [GradientMonitor, UpdateMonitor])
def test_monitors_of_one_member_refuse_the_run_of_all(monitor: Any) -> None:
    pop = ft.population(program(), seeds=[0, 1])
    with pytest.raises(ListenerError, match="got that of a population"):
        ft.fit(pop, DATA, until="1 step", listeners=[monitor(pop.programs[0], "1 step")])
