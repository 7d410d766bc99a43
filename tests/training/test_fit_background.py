"""fit with checkpoints written in the background: the same run, and events once durable."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_runs import Recorder, batches, program

import functrain as ft
from functrain import errors, tree
from functrain.checkpoint import read_manifest, verify
from functrain.training import events, finish
from functrain.training.resume import TYPES


def slowly(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Make every fsync take its time, as a busy disk does."""
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        time.sleep(seconds)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)


def run(directory: Path, background: bool, donate: bool = False, **options: Any) -> ft.Run:
    made = program(ema=ft.EMA(0.9))
    return ft.fit(
        ft.donated(made) if donate else made,
        batches(),
        until=options.pop("until", "20 steps"),
        eval_data=batches(9),
        eval_every="5 steps",
        save_every="2 steps",
        directory=ft.Checkpoints(directory, background=background),
        **options,
    )


def saved(directory: Path) -> dict[int, Any]:
    store = ft.Checkpoints(directory)
    return {step: store.restore(step, types=TYPES)[0] for step in store.steps()}


@pytest.mark.parametrize("donate", [False, True])
def test_every_checkpoint_is_that_of_a_run_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, donate: bool
) -> None:
    run(tmp_path / "waits", background=False)
    slowly(monkeypatch, 0.01)
    run(tmp_path / "goes on", background=True, donate=donate)
    assert tree.diff(saved(tmp_path / "waits"), saved(tmp_path / "goes on")) == []
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("waits", "goes on")]
    assert logs[0] == logs[1]


def test_listeners_are_notified_once_of_each_when_it_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowly(monkeypatch, 0.01)
    told: list[int] = []

    class Watch:
        def on_checkpoint_saved(self, event: events.CheckpointSaved) -> None:
            manifest = verify(event.path)
            assert manifest.step == event.state.counters.step
            told.append(manifest.step)

    recorder = Recorder()
    run(tmp_path, background=True, listeners=[Watch(), recorder])
    assert told == sorted(set(told))
    assert set(told) == set(ft.Checkpoints(tmp_path).steps())
    assert recorder.names()[-1] == "TrainEnd"
    assert recorder.names().count("CheckpointSaved") == len(told)


def test_resumed_from_what_was_saved_in_the_background(tmp_path: Path) -> None:
    run(tmp_path / "cut", background=True, until="7 steps")
    run(tmp_path / "cut", background=True)
    straight = run(tmp_path / "straight", background=False)
    assert tree.diff(saved(tmp_path / "cut")[20].train, straight.state) == []


def test_a_failed_save_ends_the_run_and_the_last_state_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, calls = os.fsync, []

    def failing(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 12:
            raise OSError(errno.EIO, "broken")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(errors.CheckpointWriteError, match="broken"):
        run(tmp_path, background=True)
    store = ft.Checkpoints(tmp_path)
    assert store.steps()
    assert all(store.verify(step) for step in store.steps())
    straight = run(tmp_path / "straight", background=False)
    assert tree.diff(run(tmp_path, background=True).state, straight.state) == []


def test_an_interrupted_run_waits_for_its_checkpoint_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupt:
        def on_batch_end(self, event: events.BatchEnd) -> None:
            signal.raise_signal(signal.SIGINT)

    fsync, may_go_on = os.fsync, threading.Event()

    def wait(descriptor: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            may_go_on.wait()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", wait)
    monkeypatch.setattr(finish, "_GRACE", 0.05)
    with pytest.raises(errors.CheckpointTimeoutError, match="step 1 is still being written"):
        run(tmp_path, background=True, listeners=[Interrupt()])
    assert ft.Checkpoints(tmp_path).steps() == []
    may_go_on.set()  # it goes on while the process lives
    deadline = time.monotonic() + 60
    while not ft.Checkpoints(tmp_path).steps() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert read_manifest(ft.Checkpoints(tmp_path).path(1)).step == 1


def test_what_others_own_is_copied_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting:
        def __init__(self) -> None:
            self.seen = torch.zeros(())

        def on_batch_end(self, event: events.BatchEnd) -> None:
            self.seen += 1

        def state_dict(self) -> dict[str, Any]:
            return {"seen": self.seen}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.seen = state["seen"]

    slowly(monkeypatch, 0.02)
    run(tmp_path, background=True, listeners=[Counting()])
    for step, each in saved(tmp_path).items():
        assert int(each.listeners["Counting"]["seen"]) == step
