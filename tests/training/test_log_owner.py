"""A run removes only what it wrote itself, from its log and from the files of its sinks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import fit, program

import functrain as ft
from functrain.errors import FunctrainError, LogError
from functrain.listeners import CSV, JSONL, Digests, SampleText

FOREIGN = ('{"my": "own results"}\n', "no line end", "step,epoch\n1,0\n", '{"step":1,"loss":0.5}\n')


def without_checkpoints(directory: Path) -> Path:
    for step in ft.Checkpoints(directory).steps():
        shutil.rmtree(ft.Checkpoints(directory).path(step))
    return directory


@pytest.mark.parametrize("text", FOREIGN)
def test_the_log_of_a_stranger_stays(tmp_path: Path, text: str) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text(text)
    with pytest.raises(LogError, match="another run"):
        fit(directory=tmp_path)
    assert log.read_text() == text


@pytest.mark.parametrize("again", [{"until": "8 steps"}, {"seed": 1}, {"resume": False, "seed": 2}])
def test_the_log_of_a_run_whose_checkpoints_were_removed_stays(
    tmp_path: Path, again: dict[str, Any]
) -> None:
    fit(directory=tmp_path)
    before = (without_checkpoints(tmp_path) / "metrics.jsonl").read_bytes()
    with pytest.raises(LogError):
        fit(directory=tmp_path, **again)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_fork_removes_no_rows_of_a_stranger(tmp_path: Path) -> None:
    fit(directory=tmp_path / "a", until="9 steps")
    (tmp_path / "a" / "metrics.jsonl").unlink()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "metrics.jsonl").write_text(FOREIGN[0])
    with pytest.raises(LogError):
        fit(directory=tmp_path / "b", resume=tmp_path / "a" / "step-00000006")
    assert (tmp_path / "b" / "metrics.jsonl").read_text() == FOREIGN[0]


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("metrics.jsonl", "m.csv", "m.jsonl")]

    def listeners() -> list[Any]:
        return [CSV(files[1]), JSONL(files[2]), Digests(tmp_path)]

    fit(listeners(), directory=tmp_path)
    whole = [file.read_bytes() for file in [*files, tmp_path / "digests.jsonl"]]
    without_checkpoints(tmp_path)  # as if the same run had been killed before it wrote any
    fit(listeners(), directory=tmp_path)
    assert [file.read_bytes() for file in [*files, tmp_path / "digests.jsonl"]] == whole


SINKS: dict[str, Callable[[Path], Any]] = {
    "csv": CSV,
    "jsonl": JSONL,
    "texts": lambda path: SampleText(program(), lambda *_: "to be", path=path, every="2 steps"),
    "digests": lambda path: Digests(path.parent),
}


@pytest.mark.parametrize("kind", SINKS)
def test_a_file_of_another_run_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("digests.jsonl" if kind == "digests" else "file")
    fit([SINKS[kind](path)], directory=tmp_path / "a")
    before = path.read_bytes()
    for other in ({"until": "8 steps"}, {"until": "8 steps", "directory": tmp_path / "b"}):
        with pytest.raises(FunctrainError, match="another run"):
            fit([SINKS[kind](path)], **other)
    fork = {"resume": tmp_path / "a" / "step-00000018", "directory": tmp_path / "c"}
    with pytest.raises(FunctrainError, match="another run"):
        fit([SINKS[kind](path)], until="30 steps", **fork)
    assert path.read_bytes() == before
    fit([SINKS[kind](path)], directory=tmp_path / "a", until="30 steps")
    assert path.read_bytes().startswith(before)


@pytest.mark.parametrize("kind", SINKS)
def test_the_same_cell_runs_twice(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("digests.jsonl" if kind == "digests" else "file")
    fit([SINKS[kind](path)])
    before = path.read_bytes()
    fit([SINKS[kind](path)])
    assert path.read_bytes() == before


def test_a_file_that_a_stranger_wrote_stays(tmp_path: Path) -> None:
    for sink in (CSV, JSONL):
        for text in FOREIGN:
            path = tmp_path / "file"
            path.write_text(text)
            with pytest.raises(FunctrainError):
                fit([sink(path)])
            assert path.read_text() == text


@pytest.mark.parametrize("kind", SINKS)
def test_a_relative_path_stays_where_the_sink_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    name = "digests.jsonl" if kind == "digests" else "file"
    sink, store = SINKS[kind](Path(name)), ft.Checkpoints("run")

    class Move:
        def on_train_begin(self, event: Any) -> None:
            monkeypatch.chdir(tmp_path / "elsewhere")

    monkeypatch.chdir(tmp_path / "elsewhere")
    run = fit([Move(), sink], directory=store, until="4 steps")  # type: ignore[arg-type]
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (tmp_path / name).exists()
    assert run.directory == tmp_path / "run"
