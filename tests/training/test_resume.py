"""Row 37: a run resumes from its latest, its best, a step, or another run's checkpoint."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import pytest
from loop_runs import batches, program, rows

import functrain as ft
from functrain import errors, tree
from functrain.checkpoint import read_manifest


class Color(enum.Enum):
    RED = 1


def run(directory: Path | None, until: str = "12 steps", **options: Any) -> ft.Run:
    return ft.fit(
        program(ema=ft.EMA(0.9)),
        batches(),
        until=until,
        eval_data=batches(9),
        eval_every="3 steps",
        save_every="2 steps",
        directory=None if directory is None else ft.Checkpoints(directory),
        **options,
    )


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))


@pytest.mark.row(37)
@pytest.mark.parametrize("step", [2, 6, 11])
def test_back_to_a_step_and_to_the_same_end(tmp_path: Path, step: int) -> None:
    step = step if step % 2 == 0 else 9
    first = run(tmp_path)
    log = (tmp_path / "metrics.jsonl").read_bytes()
    again = run(tmp_path, resume=step)
    assert tree.diff(again.state, first.state) == []
    assert (tmp_path / "metrics.jsonl").read_bytes() == log
    later = [name for name in names(tmp_path) if name.startswith("set-aside")]
    assert len(later) == 1
    aside = ft.Checkpoints(tmp_path / later[0])
    assert aside.steps() == [each for each in (2, 3, 4, 6, 8, 9, 10, 12) if each > step]
    assert (tmp_path / later[0] / "metrics.jsonl").read_bytes() == log
    # The moved checkpoints are in a run directory of their own.
    assert tree.diff(run(tmp_path / later[0]).state, first.state) == []
    run(tmp_path, resume=step)
    assert len([name for name in names(tmp_path) if name.startswith("set-aside")]) == 2


@pytest.mark.row(37)
def test_back_to_the_best(tmp_path: Path) -> None:
    first = run(tmp_path)
    best = ft.Checkpoints(tmp_path).best()
    assert best is not None
    seen = []

    class Watch:
        def on_train_begin(self, event: Any) -> None:
            seen.append(event.resumed)

    again = run(tmp_path, resume="best", listeners=[Watch()])
    assert seen == [tmp_path / f"step-{best:08d}"]
    assert tree.diff(again.state, first.state) == []


@pytest.mark.row(37)
def test_from_another_run_into_an_empty_directory(tmp_path: Path) -> None:
    first = run(tmp_path / "a", until="8 steps")
    origin = tmp_path / "a" / "step-00000006"
    second = run(tmp_path / "b", resume=origin)
    assert tree.diff(second.state, run(tmp_path / "whole").state) == []
    assert rows(tmp_path / "b") == rows(tmp_path / "whole")
    assert second.history["step"] == list(range(1, 13))
    assert read_manifest(tmp_path / "b" / "step-00000012").info["parent"] == str(origin)
    assert ft.Checkpoints(tmp_path / "a").steps() == [2, 3, 4, 6, 8]
    assert first.state.counters.step == 8
    # Called again it resumes from its own.
    assert tree.diff(run(tmp_path / "b").state, second.state) == []


def test_the_same_call_again_goes_on_wherever_it_was_cut(tmp_path: Path) -> None:
    run(tmp_path / "a", until="8 steps")
    origin, whole = tmp_path / "a" / "step-00000006", run(tmp_path / "whole")
    # Cut before its first checkpoint: nothing but the log was brought.
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "metrics.jsonl").write_bytes((tmp_path / "a" / "metrics.jsonl").read_bytes())
    run(tmp_path / "b", resume=origin, until="9 steps")
    assert tree.diff(run(tmp_path / "b", resume=origin).state, whole.state) == []
    assert rows(tmp_path / "b") == rows(tmp_path / "whole")
    assert read_manifest(tmp_path / "b" / "step-00000012").info["parent"] == str(origin)


def test_a_state_that_could_not_be_resumed_is_not_saved(tmp_path: Path) -> None:
    class Listener:
        def on_train_end(self, event: Any) -> None:
            pass

        def state_dict(self) -> dict[str, Any]:
            return {"deep": [Color.RED]}

    with pytest.raises(errors.UnsupportedError, match=r"Listener\.deep\.0 is a Color"):
        run(tmp_path, listeners=[Listener()])


def test_from_a_checkpoint_without_its_log_and_without_a_directory(tmp_path: Path) -> None:
    run(tmp_path / "a", until="8 steps")
    (tmp_path / "a" / "metrics.jsonl").unlink()
    second = run(None, resume=str(tmp_path / "a" / "step-00000006"))
    assert second.state.counters.step == 12
    assert second.history["step"] == list(range(7, 13))
    third = run(tmp_path / "c", resume=tmp_path / "a" / "step-00000006")
    assert tree.diff(third.state, second.state) == []
    assert [row["step"] for row in rows(tmp_path / "c")] == list(range(7, 13))


def test_a_path_to_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    first = run(tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for path in (tmp_path / "b" / ".." / "a", tmp_path / "link", tmp_path / "a"):
        (tmp_path / "b").mkdir(exist_ok=True)
        again = run(tmp_path / "a", resume=path / "step-00000006")
        assert tree.diff(again.state, first.state) == []


class TestARunDirectory:
    """Its newest checkpoint that verifies is meant."""

    def test_into_an_empty_directory_and_again(self, tmp_path: Path) -> None:
        run(tmp_path / "a", until="8 steps")
        whole = run(tmp_path / "whole")
        second = run(tmp_path / "b", resume=str(tmp_path / "a"), until="9 steps")
        assert second.history["step"] == list(range(1, 10))
        info = read_manifest(tmp_path / "b" / "step-00000009").info
        assert info["parent"] == str(tmp_path / "a" / "step-00000008")
        again = run(tmp_path / "b", resume=str(tmp_path / "a"))
        assert tree.diff(again.state, whole.state) == []
        assert again.history["step"] == list(range(1, 13))
        assert ft.Checkpoints(tmp_path / "a").steps()[-1] == 8

    def test_without_a_directory(self, tmp_path: Path) -> None:
        run(tmp_path / "a", until="8 steps")
        assert run(None, resume=tmp_path / "a").state.counters.step == 12

    def test_a_damaged_checkpoint_is_skipped(self, tmp_path: Path) -> None:
        run(tmp_path / "a", until="8 steps")
        (tmp_path / "a" / "step-00000008" / "manifest.json").write_text("{")
        with pytest.warns(errors.CheckpointSkippedWarning, match="step-00000008"):
            run(tmp_path / "b", resume=tmp_path / "a")
        info = read_manifest(tmp_path / "b" / "step-00000012").info
        assert info["parent"] == str(tmp_path / "a" / "step-00000006")

    def test_its_own(self, tmp_path: Path) -> None:
        first = run(tmp_path / "a", until="8 steps")
        (tmp_path / "link").symlink_to(tmp_path / "a")
        for path in (tmp_path / "a", tmp_path / "link"):
            again = run(tmp_path / "a", until="8 steps", resume=path)
            assert tree.diff(again.state, first.state) == []

    def test_of_another_run_where_there_is_one(self, tmp_path: Path) -> None:
        run(tmp_path / "a", until="4 steps")
        run(tmp_path / "b", until="4 steps")
        with pytest.raises(errors.ConfigurationError, match="choose an empty directory"):
            run(tmp_path / "b", resume=tmp_path / "a")

    def test_without_a_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(errors.NoCheckpointError, match="/a"):
            run(tmp_path / "b", resume=tmp_path / "a")
        (tmp_path / "a").mkdir()
        with pytest.raises(errors.CheckpointCorruptError, match=r"/a has no manifest\.json"):
            run(tmp_path / "b", resume=tmp_path / "a")


def test_what_cannot_be(tmp_path: Path) -> None:
    for resume in ("best", 3, 1, 0):
        with pytest.raises(errors.NoCheckpointError, match=f"resume={resume!r}"):
            run(tmp_path / "empty", resume=resume)
    run(tmp_path / "a", until="4 steps")
    run(tmp_path / "b", until="4 steps")
    with pytest.raises(errors.ConfigurationError, match="choose an empty directory"):
        run(tmp_path / "b", resume=tmp_path / "a" / "step-00000002")
    with pytest.raises(errors.ConfigurationError, match="resume=True"):
        run(tmp_path / "b", resume=False)
    with pytest.raises(errors.NoCheckpointError):
        run(tmp_path / "b", resume=7)
    assert ft.Checkpoints(tmp_path / "b").steps() == [2, 3, 4]


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_no_checkpoint_without_the_rows_of_a_log_that_is_gone(
    tmp_path: Path, replaced: bool
) -> None:
    class Removing:
        def on_batch_end(self, event: Any) -> None:
            if event.state.counters.step == 5:
                (tmp_path / "metrics.jsonl").unlink()
                if replaced:
                    (tmp_path / "metrics.jsonl").write_bytes(b"")

    with pytest.raises(errors.LogError, match=r"metrics\.jsonl was removed or replaced"):
        run(tmp_path, listeners=[Removing()])
    assert ft.Checkpoints(tmp_path).steps()[-1] == 4


def test_no_directory_without_a_name() -> None:
    with pytest.raises(errors.ConfigurationError, match='directory: expected a path, got ""'):
        ft.fit(program(), batches(), until="1 step", directory="")
