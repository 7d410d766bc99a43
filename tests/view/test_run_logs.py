"""Which runs paths stand for, and their names and logs."""

from __future__ import annotations

from pathlib import Path

from functrain.plotting.curves import short_names
from functrain.view.report_facts import read_log, runs_at


def test_names_are_the_shortest_that_tell_runs_apart() -> None:
    assert short_names([Path("runs/a"), Path("runs/b")]) == ["a", "b"]
    assert short_names([Path("x/run"), Path("y/run")]) == ["x", "y"]
    assert short_names([Path("x/a"), Path("y/a"), Path("y/b")]) == ["x/a", "y/a", "b"]
    assert short_names([Path("a"), Path("a/b")]) == ["a", "b"]
    assert short_names([Path("only")]) == ["only"]


def test_a_directory_stands_for_the_runs_below_it_in_natural_order(tmp_path: Path) -> None:
    for name in ("seed10", "seed2", "seed2/set-aside-from-1-to-2", ".hidden", "deep/down"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "metrics.jsonl").touch()
    (tmp_path / "config.yaml").touch()  # of several seeds
    found = [str(run.relative_to(tmp_path)) for run in runs_at([tmp_path, tmp_path / "seed2"])]
    assert found == ["deep/down", "seed2", "seed10"]


def test_a_damaged_log_is_read_up_to_the_damage(tmp_path: Path) -> None:
    log = b'{"step":1,"loss":1.0}\n{"step":2,"loss":"nan"}\n{"st\n{"step":4}\n'
    (tmp_path / "metrics.jsonl").write_bytes(log)
    columns, problem = read_log(tmp_path)
    assert columns.length == 2
    assert "line 3" in str(problem)


def test_a_last_line_cut_short_by_a_crash_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step":1,"loss":1.0}\n{"step":2,"lo')
    columns, problem = read_log(tmp_path)
    assert (columns.length, problem) == (1, None)
