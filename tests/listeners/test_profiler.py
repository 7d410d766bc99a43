"""Row 43: torch.profiler runs over some steps and does not change training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_runs import FailAt, fit

from functrain import tree
from functrain.errors import ListenerError
from functrain.listeners import Profiler

pytestmark = pytest.mark.row(43)


def test_it_writes_a_trace_and_a_table_of_the_chosen_steps(tmp_path: Path) -> None:
    fit([Profiler(tmp_path / "profile", wait=2, warmup=1, active=3)])
    names = sorted(file.name for file in (tmp_path / "profile").iterdir())
    assert names == ["step-00000006.trace.json", "step-00000006.txt"]
    trace = json.loads((tmp_path / "profile" / names[0]).read_text())
    steps = {e["name"] for e in trace["traceEvents"] if e["name"].startswith("ProfilerStep#")}
    assert len(steps) == 3
    assert "aten::addmm" in (tmp_path / "profile" / names[1]).read_text()


def test_it_does_not_change_training_bitwise(tmp_path: Path) -> None:
    profiler = Profiler(tmp_path / "profile", wait=1, warmup=1, active=2, repeat=0)
    with_it = fit([profiler], directory=tmp_path / "a")
    without = fit(directory=tmp_path / "b")
    assert tree.diff(with_it.state, without.state) == []
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in "ab"]
    assert logs[0] == logs[1]
    assert len(list((tmp_path / "profile").glob("*.txt"))) == 5


def test_a_run_that_ends_while_recording_leaves_a_trace(tmp_path: Path) -> None:
    fit([Profiler(tmp_path, wait=0, warmup=0, active=50)], until="4 steps")
    assert (tmp_path / "step-00000004.txt").exists()


def test_steps_after_the_last_recording_are_not_profiled(tmp_path: Path) -> None:
    profiler = Profiler(tmp_path, wait=1, warmup=1, active=2)
    watched: list[bool] = []

    class Look:
        def on_batch_end(self, event: object) -> None:
            watched.append(profiler._running is not None)

    fit([profiler, Look()], until="6 steps")
    assert watched == [True, True, True, False, False, False]


def test_it_stops_after_an_exception_and_serves_the_next_run(tmp_path: Path) -> None:
    profiler = Profiler(tmp_path, wait=1, warmup=1, active=2)
    for _ in range(2):
        with pytest.raises(ListenerError):
            fit([profiler, FailAt(1)])
        profiler.close()
    fit([profiler])
    assert (tmp_path / "step-00000004.txt").exists()


def test_a_resumed_run_is_profiled_from_where_it_resumes(tmp_path: Path) -> None:
    for until in ("7 steps", "20 steps"):
        profiler = Profiler(tmp_path / "profile", wait=1, warmup=1, active=2)
        fit([profiler], directory=tmp_path / "run", until=until)
    names = sorted(file.name for file in (tmp_path / "profile").glob("*.txt"))
    assert names == ["step-00000004.txt", "step-00000011.txt"]
