"""Rows 34 and 41: each row of the log reaches its destination once, despite interruptions."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

import processes
import pytest
from small_runs import CutAt, FailAt, fit

import functrain as ft
from functrain.core.state import params_of
from functrain.errors import ListenerError, LogError, SinkWarning
from functrain.listeners import CSV, JSONL, Sink
from functrain.metrics.log_file import Row, decode

pytestmark = pytest.mark.row(41)


class Memory:
    """A destination in memory that never loses rows, as a tracker, and may be unavailable."""

    def __init__(self, broken: bool = False) -> None:
        self.rows: list[Row] = []
        self.broken = broken
        self.tried = 0

    def _ask(self) -> None:
        self.tried += 1
        if self.broken:
            raise ConnectionError("no answer")

    def open(self, after: int, run: str | None) -> str:
        self._ask()
        self.rows = [row for row in self.rows if row["step"] <= after]
        return run or "run"

    def write(self, rows: list[Row]) -> None:
        self._ask()
        self.rows += rows

    def flush(self) -> None:
        self._ask()

    def close(self) -> None:
        self._ask()


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def logged(path: Path) -> list[Row]:
    return [decode(line) for line in path.read_bytes().splitlines()]


def steps(path: Path) -> list[int]:
    return [row["step"] for row in logged(path)]


def test_json_lines_equal_the_log(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "some.jsonl"
    fit([JSONL(path)], directory=tmp_path / "run")
    assert path.read_bytes() == (tmp_path / "run" / "metrics.jsonl").read_bytes()


def test_a_table_has_the_numbers_of_the_log_exactly(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    run = fit([CSV(path)])
    rows = table(path)
    assert [{k: float(v) for k, v in row.items()} for row in rows] == [
        {k: float(v) for k, v in row.items()} for row in run.history.rows
    ]
    assert {"eval/loss", "eval/ema/error", "epoch/loss"} <= rows[4].keys() | rows[7].keys()


def test_pandas_reads_the_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    run = fit([CSV(tmp_path / "metrics.csv")])
    frame = pandas.read_csv(tmp_path / "metrics.csv")
    steps, values = run.history.column("eval/ema/loss")
    measured = frame.dropna(subset="eval/ema/loss")
    assert measured["step"].tolist() == steps
    assert measured["eval/ema/loss"].tolist() == values


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ("4 steps", [4, 5, 8, 10, 12, 15, 16, 20]),
        ("1 epoch", [5, 8, 10, 15, 16, 20]),
        ("16 samples", [4, 5, 8, 9, 10, 13, 15, 16, 17, 20]),
    ],
)
def test_rows_with_evaluations_and_epochs_are_written_at_any_interval(
    tmp_path: Path, every: str, expected: list[int]
) -> None:
    fit([JSONL(tmp_path / "some.jsonl", every=every)])
    assert steps(tmp_path / "some.jsonl") == expected


def test_metrics_are_not_fetched_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from functrain import metrics

    fetched: list[int] = []
    fetch = metrics.fetch
    monkeypatch.setattr(metrics, "fetch", lambda rows: (fetched.append(len(rows)), fetch(rows))[1])
    sink = Sink(Memory(), "memory")
    sink.on_train_begin(ft.events.TrainBegin(state := _state(), None, None, None))
    fetched.clear()
    for step in range(1, 200):
        sink.on_batch_end(ft.events.BatchEnd(_at(state, step), {"loss": state.counters.skipped}))
    assert fetched == [64, 64, 64]


def _state() -> Any:
    from small_runs import program

    return program().init()


def _at(state: Any, step: int) -> Any:
    import attrs

    return attrs.evolve(state, counters=attrs.evolve(state.counters, step=step, batch=step))


def test_a_sink_holds_no_state_so_fit_can_update_in_place() -> None:
    places: set[int] = set()

    class Look:
        def on_batch_end(self, event: Any) -> None:
            places.add(params_of(event.state)["0.weight"].data_ptr())

    fit([Sink(Memory(), "memory"), Look()], until="8 steps", eval_every="1 epoch")
    assert len(places) == 1


@pytest.mark.row(34)
@pytest.mark.parametrize("cuts", [[8], [5, 6], [1, 2, 19], [16]])
@pytest.mark.parametrize("cut", [CutAt, FailAt])
def test_a_resumed_run_has_every_row_once(tmp_path: Path, cuts: list[int], cut: Any) -> None:
    def sinks(where: str) -> list[Sink]:
        return [JSONL(tmp_path / f"{where}.jsonl"), CSV(tmp_path / f"{where}.csv", every="2 steps")]

    fit(sinks("straight"), directory=tmp_path / "a")
    for step in cuts:
        error = pytest.raises(ListenerError) if cut is FailAt else contextlib.nullcontext()
        with error:
            fit([*sinks("cut"), cut(step)], directory=tmp_path / "b")
    fit(sinks("cut"), directory=tmp_path / "b")
    for suffix in ("jsonl", "csv"):
        one, two = (tmp_path / f"{name}.{suffix}" for name in ("straight", "cut"))
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.row(34)
def test_a_longer_run_appends_to_the_same_file(tmp_path: Path) -> None:
    fit([CSV(tmp_path / "a.csv")], directory=tmp_path / "a")
    for until in ("10 steps", "20 steps"):
        fit([CSV(tmp_path / "b.csv")], directory=tmp_path / "b", until=until)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.row(34)
def test_rewinding_removes_later_rows(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    fit([JSONL(path)], directory=ft.Checkpoints(tmp_path / "a"))
    before = path.read_bytes()
    fit([JSONL(path)], directory=ft.Checkpoints(tmp_path / "a"), resume=6, until="9 steps")
    assert steps(path) == [*range(1, 10)]
    assert path.read_bytes().splitlines()[:8] == before.splitlines()[:8]


@pytest.mark.row(34)
def test_rewinding_removes_columns_of_later_steps(tmp_path: Path) -> None:
    path, straight = tmp_path / "a.csv", tmp_path / "b.csv"
    fit([CSV(path)], directory=ft.Checkpoints(tmp_path / "a"))
    fit([CSV(path)], directory=ft.Checkpoints(tmp_path / "a"), resume=3, until="7 steps")
    fit([CSV(straight)], until="7 steps")
    assert path.read_bytes() == straight.read_bytes()
    fit([CSV(path)], directory=ft.Checkpoints(tmp_path / "a"), resume=3, until="4 steps")
    assert "epoch/loss" not in path.read_text().splitlines()[0]


@pytest.mark.row(34)
def test_a_sink_added_to_a_resumed_run_starts_there(tmp_path: Path) -> None:
    fit(directory=tmp_path / "a", until="6 steps")
    fit([JSONL(tmp_path / "some.jsonl")], directory=tmp_path / "a", until="9 steps")
    assert steps(tmp_path / "some.jsonl") == [7, 8, 9]


@pytest.mark.slow
@pytest.mark.row(34)
def test_a_killed_run_has_every_row_once(tmp_path: Path) -> None:
    script = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1] / "support")!r})
from small_runs import fit
from functrain.listeners import CSV, JSONL
import functrain.listeners.sinks.sink as sink
sink._MOST_ROWS = 1  # so that the files have more rows than the checkpoint has seen
class Kill:
    def on_batch_end(self, event):
        if event.state.counters.step == int(sys.argv[2]):
            os.kill(os.getpid(), 9)
here = Path(sys.argv[1])
sinks = [JSONL(here / "some.jsonl"), CSV(here / "some.csv"), Kill()]
fit(sinks, directory=here / "run", save_every="6 steps")
"""

    def run(where: Path, kill: int) -> int:
        where.mkdir(exist_ok=True)
        return processes.run("-c", script, str(where), str(kill)).returncode

    straight, killed = tmp_path / "straight", tmp_path / "killed"
    sinks = [JSONL(straight / "some.jsonl"), CSV(straight / "some.csv")]
    fit(sinks, directory=straight / "run", save_every="6 steps")
    for step in (4, 11):
        assert run(killed, step) == -signal.SIGKILL
        assert len((killed / "some.jsonl").read_bytes().splitlines()) == step - 1
    assert run(killed, -1) == 0
    for name in ("some.jsonl", "some.csv"):
        assert (straight / name).read_bytes() == (killed / name).read_bytes()
    assert (straight / "some.jsonl").read_bytes() == (
        straight / "run" / "metrics.jsonl"
    ).read_bytes()


def test_an_outage_warns_once_and_loses_no_row() -> None:
    memory = Memory(broken=True)

    class Mend:
        def on_batch_begin(self, event: Any) -> None:
            memory.broken = event.state.counters.step < 12

    with pytest.warns(SinkWarning) as caught:
        run = fit([Mend(), Sink(memory, "Memory('there')")])
    assert len(caught) == 1
    assert "could not write to Memory('there') at step 0: ConnectionError: no answer" in str(
        caught[0].message
    )
    assert memory.rows == run.history.rows


def test_a_second_outage_warns_again_and_is_not_retried_at_each_step() -> None:
    memory = Memory()

    class Break:
        def on_batch_begin(self, event: Any) -> None:
            memory.broken = event.state.counters.step in range(3, 10) or (
                event.state.counters.step > 13
            )

    with pytest.warns(SinkWarning) as caught:
        fit([Break(), Sink(memory, "memory")])
    assert len(caught) == 2
    # Begin; rows after evaluations and epochs; the end.
    assert memory.tried < 16


def test_a_failed_required_destination_ends_the_run(tmp_path: Path) -> None:
    memory = Memory()

    class Break:
        def on_batch_begin(self, event: Any) -> None:
            memory.broken = event.state.counters.step >= 5

    class Mend:
        def on_train_begin(self, event: Any) -> None:
            memory.broken = False

    with (
        pytest.raises(ListenerError, match=r"Sink.on_batch_end failed.*no answer"),
        pytest.warns(SinkWarning),  # of the last checkpoint, which is saved nevertheless
    ):
        fit([Break(), Sink(memory, "memory", required=True)], directory=tmp_path / "run")
    assert max(ft.Checkpoints(tmp_path / "run").steps()) >= 6
    run = fit([Mend(), Sink(memory, "memory", required=True)], directory=tmp_path / "run")
    assert memory.rows == run.history.rows


def test_unwritten_rows_survive_in_the_checkpoint(tmp_path: Path) -> None:
    away = Memory(broken=True)
    with pytest.warns(SinkWarning):
        fit([Sink(away, "memory")], directory=tmp_path / "run", until="7 steps")
    back = Memory()
    run = fit([Sink(back, "memory")], directory=tmp_path / "run")
    assert back.rows == run.history.rows


def test_a_full_disk_leaves_whole_lines_and_writing_continues_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, full = os.write, [False]

    def limited(descriptor: int, data: Any) -> int:
        if full[0] and b'"loss"' in bytes(data):
            write(descriptor, bytes(data)[:20])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    class Fill:
        def on_batch_begin(self, event: Any) -> None:
            full[0] = 6 <= event.state.counters.step < 14

    path = tmp_path / "some.jsonl"
    monkeypatch.setattr(os, "write", limited)
    with pytest.warns(SinkWarning, match="No space left") as caught:
        run = fit([Fill(), JSONL(path)])
    assert len(caught) == 1
    assert logged(path) == run.history.rows


def test_a_full_disk_when_a_column_is_added_loses_no_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, failed = os.replace, []

    def refused(source: Any, target: Any) -> None:
        if Path(target).suffix == ".csv" and len(failed) < 2:
            failed.append(target)
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    path = tmp_path / "some.csv"
    monkeypatch.setattr(os, "replace", refused)
    with pytest.warns(SinkWarning, match="No space left"):
        run = fit([CSV(path)])
    with path.open(newline="") as file:
        written = list(csv.DictReader(file))
    assert len(failed) == 2
    assert list(written[0]) == list(dict.fromkeys(name for row in run.history.rows for name in row))
    assert [int(row["step"]) for row in written] == [row["step"] for row in run.history.rows]


def test_rows_kept_during_an_outage_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from functrain.listeners.sinks import sink as module

    monkeypatch.setattr(module, "_MOST_HELD", 3)
    with pytest.warns(SinkWarning) as caught:
        fit([Sink(Memory(broken=True), "memory")])
    assert "unwritten rows are lost" in str(caught[-1].message)


@pytest.mark.parametrize("directory", [False, True])
def test_rows_are_written_when_an_exception_ends_the_run(tmp_path: Path, directory: bool) -> None:
    where = tmp_path / "run" if directory else None
    with (
        contextlib.closing(JSONL(tmp_path / "some.jsonl")) as sink,
        pytest.raises(ListenerError, match="cut"),
    ):
        fit([sink, FailAt(7)], directory=where)
    assert steps(tmp_path / "some.jsonl") == [*range(1, 8)]


def test_a_file_with_other_content_is_not_overwritten(tmp_path: Path) -> None:
    for name, make in (("data.csv", CSV), ("data.jsonl", JSONL)):
        path = tmp_path / name
        path.write_text("name,age\nAda,36\n")
        with pytest.raises(ListenerError, match="is not overwritten") as caught:
            fit([make(path)])
        assert isinstance(caught.value.__cause__, LogError)
        assert path.read_text() == "name,age\nAda,36\n"


def test_a_fresh_run_empties_the_file_of_an_earlier_one(tmp_path: Path) -> None:
    for _ in range(2):
        fit([CSV(tmp_path / "a.csv"), JSONL(tmp_path / "a.jsonl")])
    assert len(table(tmp_path / "a.csv")) == 20
    assert len((tmp_path / "a.jsonl").read_bytes().splitlines()) == 20


def test_a_sink_serves_several_runs(tmp_path: Path) -> None:
    sink = CSV(tmp_path / "a.csv")
    first = fit([sink], until="6 steps")
    fit([sink], until="12 steps", state=first.state)
    assert [int(row["step"]) for row in table(tmp_path / "a.csv")] == [*range(1, 13)]


def test_reordered_listeners_find_their_states(tmp_path: Path) -> None:
    one, two = CSV(tmp_path / "a.csv"), JSONL(tmp_path / "a.jsonl")
    fit([one, two], directory=tmp_path / "run", until="5 steps")
    run = fit([two, FailAt(99), one], directory=tmp_path / "run")
    written = [int(row["step"]) for row in table(tmp_path / "a.csv")]
    assert written == [row["step"] for row in run.history.rows]
    assert logged(tmp_path / "a.jsonl") == run.history.rows


def test_nonfinite_numbers_are_written(tmp_path: Path) -> None:
    class Odd:
        def on_batch_end(self, event: Any) -> dict[str, float]:
            step = event.state.counters.step
            return {"odd": {1: float("nan"), 2: float("inf")}.get(step, -float("inf"))}

    fit([Odd(), CSV(tmp_path / "a.csv"), JSONL(tmp_path / "a.jsonl")], until="3 steps")
    assert [row["odd"] for row in table(tmp_path / "a.csv")] == ["nan", "inf", "-inf"]
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["odd"] for line in lines] == ["nan", "inf", "-inf"]
    # A resumed run reads them again.
    fit([CSV(tmp_path / "a.csv")], until="3 steps", state=fit(until="2 steps").state)
