"""Rows 36 and 37: checkpoints that are kept, found again, or skipped."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from functrain import tree
from functrain.checkpoint import Checkpoints, checkpoints, load, read_manifest, save
from functrain.checkpoint.loading import read
from functrain.checkpoint.retention import (
    Best,
    Entry,
    EveryMinutes,
    EverySteps,
    Last,
    Mode,
    prunable,
)
from functrain.checkpoint.storage import commit
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointMismatchError,
    CheckpointSkippedWarning,
    CheckpointWriteWarning,
    ConfigurationError,
    NoCheckpointError,
    UnsupportedError,
)


def make(step: int) -> dict[str, Any]:
    return {"params": {"w": torch.full((3,), float(step))}}


def fill(store: Checkpoints, losses: dict[int, Any]) -> None:
    for step, loss in losses.items():
        store.save(make(step), step=step, metrics={} if loss is None else {"loss": loss})


def damage(store: Checkpoints, step: int, name: str = "params.safetensors") -> None:
    file = store.path(step) / name
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.row(36)
def test_last_and_best_are_kept(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep_last=2, keep_best=2)
    fill(store, {8: 0.5, 9: 0.1, 10: 0.9, 100: 0.2, 1000: 0.8, 100_000_000: 0.7})
    assert store.steps() == [9, 100, 1000, 100_000_000]
    assert store.best() == 9
    assert [path.name for path in sorted(tmp_path.glob("step-*"))] == [
        "step-00000009",
        "step-00000100",
        "step-00001000",
        "step-100000000",
    ]


@pytest.mark.row(36)
def test_none_keeps_all(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep_last=None)
    fill(store, dict.fromkeys(range(6)))
    assert store.steps() == list(range(6))
    assert store.best() is None
    assert store.prune() == []


@pytest.mark.row(26)
@pytest.mark.parametrize(
    ("mode", "losses", "best"),
    [
        ("min", [2.0, math.nan, 1.0, 1.0, -math.inf], 2),
        ("max", [2.0, math.inf, 3.0, 3, math.nan], 2),
        ("min", [math.nan, math.inf, None, "low", None], None),
        ("min", [-0.5, -1.0, None, 0.0, -0.7], 1),
    ],
)
def test_best_is_strict_and_finite(
    tmp_path: Path, mode: Any, losses: list[Any], best: int | None
) -> None:
    store = Checkpoints(tmp_path, keep_last=None, mode=mode)
    fill(store, dict(enumerate(losses)))
    assert store.best() == best
    if best is None:
        with pytest.raises(NoCheckpointError, match=r"finite metric 'loss'"):
            store.restore("best")
    else:
        assert store.restore("best")[1].step == best


@given(
    st.dictionaries(st.integers(0, 50), st.floats() | st.none(), max_size=12),
    st.integers(1, 4),
    st.integers(0, 3),
    st.sampled_from(["min", "max"]),
)
def test_retention_law(losses: dict[int, Any], last: int, best: int, mode: Mode) -> None:
    entries = {step: Entry({} if loss is None else {"m": loss}) for step, loss in losses.items()}
    order = Best("m", mode).ranked(entries)
    rules = [Last(last), Best("m", mode, best)]
    going = prunable(entries, rules, just_saved=min(losses, default=None))
    kept = set(losses) - set(going)
    finite = [loss for loss in losses.values() if loss is not None and math.isfinite(loss)]
    assert len(order) == len(finite)
    if order:
        assert losses[order[0]] == (min if mode == "min" else max)(finite)
    assert kept >= {*sorted(losses)[-last:], *order[:best]}
    assert len(kept) <= last + best + 1
    assert not losses or min(losses) in kept


times = st.floats(0, 1e4) | st.none()


@given(
    st.dictionaries(st.integers(0, 50), times, max_size=12), st.integers(1, 10), st.floats(0.1, 60)
)
def test_pruning_is_idempotent_and_a_union(
    saved: dict[int, float | None], steps: int, minutes: float
) -> None:
    entries = {step: Entry({}, saved_at) for step, saved_at in saved.items()}
    rules = [EverySteps(steps), EveryMinutes(minutes), Last(2)]
    going = prunable(entries, rules, None)
    left = {step: entry for step, entry in entries.items() if step not in going}
    assert prunable(left, rules, None) == []
    assert set(left) == set.union(*(rule.kept(entries) for rule in rules))
    spans = [(at // (60 * minutes)) for at in saved.values() if at is not None]
    assert len(EveryMinutes(minutes).kept(entries)) == len(set(spans)) + len(saved) - len(spans)
    assert prunable(entries, [], None) == []


@pytest.mark.row(36)
def test_any_union_of_rules(tmp_path: Path) -> None:
    store = Checkpoints(
        tmp_path, keep_last=1, keep_best=1, keep_every_steps=4, keep=[Best("accuracy", "max", 1)]
    )
    for step in range(1, 11):
        metrics = {"loss": abs(step - 3), "accuracy": -abs(step - 6)}
        store.save({"step": step}, step=step, metrics=metrics)
    assert store.steps() == [3, 4, 6, 8, 10]
    assert Checkpoints(tmp_path).rules == ()
    only = Checkpoints(tmp_path, keep_best=0, keep_every_steps=5)
    assert only.prune(dry_run=True) == [3, 4, 6, 8]
    assert store.steps() == [3, 4, 6, 8, 10]
    assert only.prune() == [3, 4, 6, 8]
    assert store.steps() == [10]


@pytest.mark.row(36)
def test_one_for_each_span_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Checkpoints(tmp_path, keep_last=1, keep_best=0, keep_every_minutes=2)
    for step in range(10):
        monkeypatch.setattr(time, "time", lambda step=step: 1000.0 * 60 + 30.0 * step)
        store.save({}, step=step)
    assert store.steps() == [0, 4, 8, 9]


def test_verify_names_the_damage(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    path = store.save({"w": torch.ones(3)}, step=1)
    assert store.verify(1).step == 1
    file = path / "rest.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\7")
    with pytest.raises(CheckpointCorruptError, match=r"the bytes of w are not"):
        store.verify(1)


@pytest.mark.row(37)
def test_latest_best_step_and_path(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    fill(store, {1: 0.3, 2: 0.1, 3: 0.2})
    for which, step in ((None, 3), ("latest", 3), ("best", 2), (1, 1), (store.path(2), 2)):
        loaded, manifest = store.restore(which, like=make(0))
        assert manifest.step == step
        assert tree.equal(loaded, make(step))
    assert store.restore(step=2)[1].step == 2
    with pytest.raises(NoCheckpointError, match="step-00000007"):
        store.restore(7)
    with pytest.raises(ConfigurationError, match="not both"):
        store.restore("best", step=2)


def test_nothing_there(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path / "run")
    assert store.steps() == []
    assert store.best() is None
    with pytest.raises(NoCheckpointError, match=r"no checkpoint in .*run"):
        store.restore()
    assert not store.directory.exists()


@pytest.mark.row(37)
@pytest.mark.parametrize("name", ["params.safetensors", "manifest.json"])
def test_damaged_checkpoints_are_skipped_with_a_warning(tmp_path: Path, name: str) -> None:
    store = Checkpoints(tmp_path)
    fill(store, {1: 0.1, 2: 0.2, 3: 0.3})
    damage(store, 3, name)
    with pytest.warns(CheckpointSkippedWarning, match=rf"step-00000003.*{name}"):
        assert store.restore()[1].step == 2
    damage(store, 2)
    with pytest.warns(CheckpointSkippedWarning) as told:
        assert tree.equal(store.restore()[0], make(1))
    assert len(told) == 2
    assert store.steps() == [1, 2, 3]
    with pytest.raises(CheckpointCorruptError, match=name):
        store.restore(3)
    damage(store, 1)
    with pytest.warns(CheckpointSkippedWarning), pytest.raises(CheckpointCorruptError) as caught:
        store.restore()
    assert all(f"step-0000000{step}" in str(caught.value) for step in (1, 2, 3))


def test_a_damaged_best_checkpoint_is_skipped_for_the_next_best(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    fill(store, {1: 0.2, 2: 0.1, 3: 0.3})
    damage(store, 2)
    with pytest.warns(CheckpointSkippedWarning, match="step-00000002"):
        assert store.restore("best")[1].step == 1


def test_without_a_best_the_metrics_there_are_named(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    with pytest.raises(NoCheckpointError, match=r"with a finite metric 'loss'$"):
        store.restore("best")
    store.save(make(1), step=1, metrics={"val/loss": 0.1, "lr": 1e-3})
    with pytest.raises(NoCheckpointError, match="that they have as monitor: lr, val/loss"):
        store.restore("best")


@pytest.mark.row(37)
@pytest.mark.parametrize("which", ["latest", "best"])
def test_a_checkpoint_pruned_while_it_is_read_is_listed_again(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Checkpoints(tmp_path, keep_last=1, keep_best=1)
    fill(store, {1: 0.5})
    save(store.path(0), make(0), step=0, metrics={"loss": 0.9})

    def late(path: Path, *rest: Any, **options: Any) -> Any:
        if path == store.path(1) and path.exists():
            fill(store, {2: 0.4, 3: 0.3})  # another process, which removes the first two
            save(store.path(0), make(0), step=0, metrics={"loss": 0.9}, overwrite=True)
        return read(path, *rest, **options)

    monkeypatch.setattr(checkpoints, "read", late)
    assert tree.equal(store.restore(which)[0], make(3))


def test_a_name_without_a_checkpoint_is_skipped(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    fill(store, {1: None})
    for step in range(2, 30):
        store.path(step).symlink_to("nowhere")
    assert tree.equal(store.restore()[0], make(1))


@pytest.mark.row(39)
def test_a_mismatch_is_not_damage(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    fill(store, {1: 0.2, 2: 0.1})
    with pytest.raises(CheckpointMismatchError, match=r"params\.w"):
        store.restore(like={"params": {"w": torch.zeros(4)}})


def test_a_checkpoint_under_the_name_of_another_step(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    fill(store, {1: 0.2, 2: 0.1})
    shutil.copytree(store.path(1), store.path(3))
    with pytest.warns(CheckpointSkippedWarning, match=r"step-00000003 holds .* step 1"):
        assert store.restore()[1].step == 2
    with pytest.raises(CheckpointCorruptError, match="holds the checkpoint of step 1"):
        store.restore(3)


def test_the_last_valid_checkpoint_stays(tmp_path: Path) -> None:
    Checkpoints(tmp_path, keep_last=None)
    fill(Checkpoints(tmp_path, keep_last=None), dict.fromkeys(range(1, 6)))
    store = Checkpoints(tmp_path, keep_last=2)
    damage(store, 4)
    damage(store, 5)
    assert store.prune() == [1, 2]
    assert store.steps() == [3, 4, 5]
    assert store.prune() == []
    with pytest.warns(CheckpointSkippedWarning):
        assert store.restore()[1].step == 3


def test_saving_below_older_steps_keeps_the_new_checkpoint(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep_last=2)
    fill(store, {10: None, 20: None, 5: None})
    assert store.steps() == [5, 10, 20]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.save(make(1), step=1)
    store.save(make(2), step=1, info={"again": True})
    loaded, manifest = store.restore()
    assert tree.equal(loaded, make(2))
    assert manifest.info == {"again": True}


def test_an_interrupted_replacement_is_finished(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    path = store.save(make(1), step=1)
    # The leftovers of a SIGKILL between the two renames.
    path.rename(tmp_path / f".{path.name}.1.{'0' * 16}.replaced")
    save(tmp_path / "draft", make(9)).rename(tmp_path / f".{path.name}.1.{'0' * 16}.writing")
    (tmp_path / f".step-00000000.1.{'1' * 16}.removed").mkdir()
    assert store.steps() == [1]
    assert tree.equal(store.restore()[0], make(1))
    with store.lock():
        assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", "FORMAT", path.name]
    assert tree.equal(store.restore()[0], make(1))


def test_a_failed_removal_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    store = Checkpoints(tmp_path, keep_last=1, keep_best=0)
    store.save(make(1), step=1)
    monkeypatch.setattr(commit, "remove", refuse)
    with pytest.warns(CheckpointWriteWarning, match="step-00000001.*Permission denied"):
        store.save(make(2), step=2)
    assert store.steps() == [1, 2]


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"keep_last: expected.*got 0"):
        Checkpoints(tmp_path, keep_last=0)
    with pytest.raises(ValueError, match="keep_best"):
        Checkpoints(tmp_path, keep_best=-1)
    with pytest.raises(ValueError, match="mode"):
        Checkpoints(tmp_path, mode="lowest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="-1"):
        Checkpoints(tmp_path).path(-1)


def test_numbers_of_other_libraries_are_metrics_and_steps(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep_last=1)
    store.save({}, step=np.int64(1), metrics={"loss": np.float32(0.1)})
    store.save({}, step=2, metrics={"loss": torch.tensor(0.5)})
    store.save({}, step=3, metrics={"loss": 10**400})
    assert (store.best(), store.steps()) == (1, [1, 3])
    assert store.restore(np.int64(1))[1].step == 1
    with pytest.raises(UnsupportedError, match=r"metrics\.loss is a Tensor of shape \[2\]"):
        store.save({}, step=4, metrics={"loss": torch.ones(2)})
    for step in (-1, 10**18, 1.5):
        with pytest.raises((ValueError, TypeError)):
            store.save({}, step=step)  # type: ignore[arg-type]


def test_names_that_only_look_like_checkpoints(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep_last=2)
    store.save({}, step=1, metrics={"loss": 1})
    (tmp_path / "step-7").mkdir()
    (tmp_path / "step-00000008").write_text("a file")
    (tmp_path / "step-00000009").symlink_to(tmp_path / "nowhere")
    with pytest.warns(CheckpointSkippedWarning, match="step-0000000"):
        store.save({}, step=2, metrics={"loss": 2})
    with pytest.warns(CheckpointSkippedWarning, match="step-0000000"):
        assert store.best() == 1
    assert (tmp_path / "step-7").exists()


def test_removing_a_symlinked_checkpoint_keeps_its_target(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path / "run", keep_last=1, keep_best=0)
    elsewhere = save(tmp_path / "elsewhere", {}, step=1)
    store.save({}, step=2)
    (store.path(1)).symlink_to(elsewhere)
    store.save({}, step=3)
    assert store.steps() == [3]
    assert [name for name in os.listdir(store.directory) if "removed" in name] == []
    assert read_manifest(elsewhere).step == 1


def test_a_forked_child_does_not_keep_the_directory_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers of a loader may be forked while another thread is saving."""
    children, rename = [], os.rename

    def forking(old: Any, new: Any) -> None:
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
        rename(old, new)

    store = Checkpoints(tmp_path)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", forking)
            store.save({}, step=1)
        store.save({}, step=2)
        assert all(os.waitpid(child, os.WNOHANG) == (0, 0) for child in children)  # they still run
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert children


def test_without_working_locks_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "no locks")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits"))
    store = Checkpoints(tmp_path)
    store.save({}, step=1)
    save(tmp_path / "other", {})
    assert store.steps() == [1]


def test_the_name_of_a_holder_does_not_outlive_its_lock(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.save({}, step=1)
    assert (tmp_path / ".lock").read_bytes() == b""
    with store.lock():
        assert (tmp_path / ".lock").read_text().split()[1] == str(os.getpid())
        store.save({}, step=2)


def test_a_run_directory_is_not_mistaken_for_a_checkpoint(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save({}, step=1)
    with pytest.raises(NoCheckpointError, match=r"is a run directory; .*step-00000001"):
        load(tmp_path)
