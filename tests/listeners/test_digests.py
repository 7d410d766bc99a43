"""Row 54: a hash of the state at each step compares runs without their states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import small_runs

import functrain as ft
from functrain import errors, tree
from functrain.listeners import Digests
from functrain.listeners.digests import read
from functrain.tree.hashing import merkle

pytestmark = pytest.mark.row(54)


def raw(directory: Path) -> bytes:
    return (directory / "digests.jsonl").read_bytes()


def test_each_step_has_the_hash_of_its_state_and_training_is_unchanged(tmp_path: Path) -> None:
    seen = []

    class Watch:
        def on_batch_end(self, event: Any) -> None:
            seen.append(merkle(event.state).digest.hex())

    run = small_runs.fit([Digests(tmp_path), Watch()], directory=tmp_path)
    plain = small_runs.fit(directory=tmp_path / "plain")
    assert tree.diff(run.state, plain.state) == []
    rows = list(read(tmp_path))
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert [row["root"] for row in rows] == seen
    assert set(rows[0]["parts"]) == {name for name, _ in tree.children(run.state)}


@pytest.mark.parametrize("cut", [1, 7, 8, 11])
def test_an_interrupted_run_has_every_step_once(tmp_path: Path, cut: int) -> None:
    small_runs.fit([Digests(tmp_path / "a")], directory=tmp_path / "a")
    digests = Digests(tmp_path / "b")
    with pytest.raises(errors.ListenerError):
        small_runs.fit([digests, small_runs.FailAt(cut)], directory=tmp_path / "b")
    with (tmp_path / "b" / "digests.jsonl").open("ab") as file:
        file.write(b'{"step":9')  # as a kill may leave it
    small_runs.fit([Digests(tmp_path / "b")], directory=tmp_path / "b")
    assert raw(tmp_path / "a") == raw(tmp_path / "b")


def test_a_state_of_an_earlier_version_still_loads(tmp_path: Path) -> None:
    small_runs.fit([Digests(tmp_path)], directory=tmp_path, until="12 steps")
    lines = raw(tmp_path).splitlines(keepends=True)
    run = Digests(tmp_path)
    run.load_state_dict({"digests": [lines[11].decode()], "run": "an earlier run"})
    assert (run.after, [row["step"] for row in run.rows.complete]) == (11, [12])


def test_rewinding_truncates_the_file_and_forking_copies_it(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    store = ft.Checkpoints(a)
    small_runs.fit([Digests(a)], directory=store)
    whole = raw(a)
    small_runs.fit([Digests(a)], directory=store, resume=9)
    assert raw(a) == whole
    small_runs.fit([Digests(b)], directory=b, resume=store.path(9))
    assert raw(b) == whole


def test_a_temporarily_full_disk_loses_no_row(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    small_runs.fit([Digests(whole)], directory=whole)
    digests = Digests(tmp_path / "b")

    class Full:
        """A file without space on the disk from step 6 to 12."""

        def __init__(self, file: Any) -> None:
            self.file, self.full = file, False

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def append(self, data: bytes) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            self.file.append(data)

    class Switch:
        def on_batch_begin(self, event: Any) -> None:
            full.full = 6 <= event.state.counters.step < 12

    full = digests.destination.file = Full(digests.destination.file)
    with pytest.warns(errors.SinkWarning, match="Training continues") as caught:
        small_runs.fit([digests, Switch()], directory=tmp_path / "b")
    assert len(caught) == 1
    assert raw(tmp_path / "b") == raw(whole)


def test_unwritten_rows_are_in_the_checkpoint(tmp_path: Path) -> None:
    """A run ends while the disk is full and half of its last write is in the file."""
    small_runs.fit([Digests(tmp_path / "a")], directory=tmp_path / "a")
    b = tmp_path / "b"
    digests = Digests(b)
    file, size = digests.destination.file, 0

    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(file, name)

        def append(self, data: bytes) -> None:
            with file.path.open("r+b") as stream:
                stream.seek(size)
                stream.write(data[:-20])
            raise OSError(28, "No space left on device")

    class FromStep6:
        def on_batch_begin(self, event: Any) -> None:
            nonlocal size
            if event.state.counters.step == 6:
                size = file.path.stat().st_size
                digests.destination.file = Full()

    with pytest.warns(errors.SinkWarning, match="No space"):
        small_runs.fit([digests, FromStep6()], directory=b, until="12 steps")
    assert len(list(read(b))) > 6
    small_runs.fit([Digests(b)], directory=b)
    assert raw(tmp_path / "a") == raw(b)


def test_a_file_with_other_content_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "digests.jsonl").write_text("my notes\n")
    with pytest.raises(errors.ListenerError, match="is not the log of a run"):
        small_runs.fit([Digests(tmp_path)], directory=tmp_path)
    assert (tmp_path / "digests.jsonl").read_text() == "my notes\n"


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="takes steps"):
        Digests(tmp_path, every="1 epoch")
