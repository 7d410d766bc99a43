"""A call that trains nothing changes nothing in the run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import functrain as ft
from functrain import listeners
from functrain.listeners.digests import Digests

X = torch.linspace(-1, 1, 32).reshape(16, 2)


def written(directory: Path) -> dict[Path, Any]:
    files = [path for path in directory.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def files_of(directory: Path) -> list[Any]:
    """Make the listeners that write files."""
    return [
        listeners.CSV(directory / "table.csv"),
        listeners.JSONL(directory / "some.jsonl", every="3 steps"),
        Digests(directory),
        listeners.Profiler(directory / "profile"),
    ]


def fit(directory: Path, until: str = "2 epochs", **options: Any) -> ft.Run:
    loss = lambda model, x: model(x).square().mean()  # noqa: E731
    made = ft.program(lambda: torch.nn.Linear(2, 1), loss, ft.optim.Adam(lr=0.1), ema=0.5)
    data = ft.data.Batches(X, 4)
    store = ft.Checkpoints(directory, monitor=options.pop("monitor", "eval/loss"), keep_last=2)
    given: dict[str, Any] = {"eval_data": [X], "directory": store}
    return ft.fit(made, data, until=until, **{**given, **options})


CALLS: dict[str, Any] = {
    "the same": {},
    "more listeners": {"listeners": files_of},
    "no evaluation": {"eval_data": None},
    "sanity": {"sanity_batches": 1},
    "rule": {"early_stop": ft.EarlyStop(patience=7)},
    "restored": {"restore_best": True},
    "intervals": {"save_every": "1 step", "eval_every": "3 steps"},
    "resume": {"resume": "latest"},
}


@pytest.mark.filterwarnings("ignore::functrain.errors.FunctrainWarning")
@pytest.mark.parametrize("first", ["plain", "with listeners"])
@pytest.mark.parametrize("call", CALLS)
def test_leaves_every_file(first: str, call: str, tmp_path: Path) -> None:
    some = files_of if first == "with listeners" else lambda _: []
    fit(tmp_path, listeners=some(tmp_path))
    before = written(tmp_path)
    options = {"listeners": some, **CALLS[call]}
    run = fit(tmp_path, **{**options, "listeners": options["listeners"](tmp_path)})
    assert run.new_steps == 0
    assert written(tmp_path) == before


@pytest.mark.filterwarnings("ignore::functrain.errors.FunctrainWarning")
@pytest.mark.parametrize("until", ["3 steps", "1 epoch", "9 samples", "0.001 seconds"])
@pytest.mark.parametrize("monitor", ["eval/loss", "eval/ema/loss"])
def test_that_is_shorter_or_monitors_another_metric_leaves_every_file(
    until: str, monitor: str, tmp_path: Path
) -> None:
    fit(tmp_path, listeners=files_of(tmp_path))
    before = written(tmp_path)
    run = fit(tmp_path, until, monitor=monitor, listeners=files_of(tmp_path))
    assert run.new_steps == 0
    assert written(tmp_path) == before


def test_writes_the_last_row_that_a_kill_kept_from_a_table(tmp_path: Path) -> None:
    table, some = tmp_path / "table.csv", tmp_path / "some.jsonl"
    sinks = lambda: [listeners.CSV(table), listeners.JSONL(some)]  # noqa: E731
    fit(tmp_path / "run", listeners=sinks())
    before = {path: path.read_bytes() for path in (table, some)}
    for path, data in before.items():
        path.write_bytes(data[: data[:-1].rfind(b"\n") + 1])
    assert fit(tmp_path / "run", listeners=sinks()).new_steps == 0
    assert {path: path.read_bytes() for path in before} == before


def test_leaves_a_table_of_another_run(tmp_path: Path) -> None:
    fit(tmp_path / "run")
    table = tmp_path / "table.csv"
    table.write_text("step,epoch,loss\n1,0,0.5\n")
    fit(tmp_path / "run", listeners=[listeners.CSV(table)])
    assert table.read_text() == "step,epoch,loss\n1,0,0.5\n"
