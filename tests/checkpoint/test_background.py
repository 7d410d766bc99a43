"""Saving in the background: held by reference, one at a time, errors raised, never torn."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from functrain import tree
from functrain.checkpoint import Checkpoints, Saver, load
from functrain.checkpoint.snapshot import Snapshot
from functrain.errors import (
    CheckpointChangedError,
    CheckpointTimeoutError,
    CheckpointWriteError,
    CheckpointWriteWarning,
    UnsupportedError,
)


class Held:
    """A store that writes when it is let."""

    def __init__(self, store: Checkpoints) -> None:
        self.store, self.go = store, threading.Event()

    def write(self, snap: Snapshot) -> Path:
        assert self.go.wait(10)
        return self.store.write(snap)


@pytest.fixture
def held(tmp_path: Path) -> Held:
    return Held(Checkpoints(tmp_path / "run"))


def make(step: int) -> dict[str, Any]:
    weight = torch.full((1000,), float(step))
    return {"params": {"w": weight, "tied": weight}, "moments": torch.randn(3, 4).t()}


def test_saving_returns_before_anything_is_written(held: Held) -> None:
    value = make(1)
    saver = Saver(held)
    saver.save(value, step=1, metrics={"loss": 0.5}, info={"note": "x"})
    assert held.store.steps() == []
    assert saver.poll() is None
    held.go.set()
    assert saver.wait() == held.store.path(1)
    assert (saver.wait(), saver.poll()) == (None, None)
    loaded, manifest = held.store.restore()
    assert tree.equal(loaded, value)
    assert loaded["moments"].stride() == value["moments"].stride()
    assert (manifest.metrics, manifest.info) == ({"loss": 0.5}, {"note": "x"})


def test_mutable_values_other_than_tensors_are_copied_at_once(held: Held) -> None:
    value, info = {"w": torch.ones(2), "rows": [1]}, {"rows": [1]}
    with Saver(held) as saver:
        saver.save(value, step=1, info=info)
        value["rows"].append(2)
        info["rows"].append(2)
        held.go.set()
    loaded, manifest = held.store.restore()
    assert loaded["rows"] == manifest.info["rows"] == [1]


def test_one_save_in_pending(held: Held) -> None:
    saver, saved = Saver(held), []

    def both() -> None:
        saver.save(make(1), step=1)
        saver.save(make(2), step=2)
        saved.append(held.store.steps())
        saver.close()

    thread = threading.Thread(target=both)
    thread.start()
    time.sleep(0.05)
    assert saved == []
    held.go.set()
    thread.join()
    assert saved[0][:1] == [1]
    assert held.store.steps() == [1, 2]


def test_waiting_can_be_interrupted_and_repeated(held: Held) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    saver, before = Saver(held), signal.signal(signal.SIGALRM, interrupt)
    try:
        saver.save(make(1), step=1)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            saver.wait()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert saver.poll() is None
    held.go.set()
    assert saver.wait() == held.store.path(1)


def test_a_signal_handler_may_save_while_a_save_begins(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    saver = Saver(store)

    class Metric:
        def item(self) -> float:
            signal.raise_signal(signal.SIGUSR1)
            return 0.5

    before = signal.signal(signal.SIGUSR1, lambda *_: saver.save(make(1), step=1))
    try:
        saver.save(make(2), step=2, metrics={"loss": Metric()})
    finally:
        signal.signal(signal.SIGUSR1, before)
    saver.close()
    assert store.steps() == [1, 2]


def test_arrays_are_copied_at_once(held: Held) -> None:
    array = np.zeros(3)
    with Saver(held) as saver:
        saver.save({"x": array, "w": torch.ones(2)}, step=1)
        array.fill(7)
        held.go.set()
    assert held.store.restore()[0]["x"].tolist() == [0, 0, 0]


def test_one_save_in_pending_from_any_thread(tmp_path: Path) -> None:
    store, together, most = Checkpoints(tmp_path), [], []

    class Counting:
        def write(self, snap: Snapshot) -> Path:
            together.append(snap)
            most.append(len(together))
            time.sleep(0.02)
            path = store.write(snap)
            together.pop()
            return path

    saver = Saver(Counting())
    threads = [
        threading.Thread(target=saver.save, args=(make(step),), kwargs={"step": step})
        for step in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    saver.close()
    assert store.steps() == list(range(6))
    assert max(most) == 1


def test_a_tensor_changed_during_a_save_is_an_error(held: Held) -> None:
    value = make(1)
    saver = Saver(held)
    saver.save(value, step=1)
    value["moments"].add_(1)
    held.go.set()
    with pytest.raises(CheckpointChangedError, match=r"moments was changed .* staged=True"):
        saver.wait()
    assert held.store.steps() == []
    assert os.listdir(held.store.directory) in ([], [".lock", "FORMAT"], ["FORMAT", ".lock"])


def test_staged_copies_are_independent_and_reuse_memory(held: Held) -> None:
    saver, value = Saver(held, staged=True), make(1)
    addresses = []
    for step in (1, 2, 3):
        held.go.clear()
        value["params"]["w"].fill_(step)
        saver.save(value, step=step)
        addresses.append({tensor.data_ptr() for tensor in saver._holding._copies.values()})
        value["params"]["w"].fill_(-1)
        held.go.set()
        saver.wait()
        loaded, _ = held.store.restore()
        assert (loaded["params"]["w"] == step).all()
        assert loaded["params"]["w"] is loaded["params"]["tied"]
        assert loaded["moments"].stride() == value["moments"].stride()
    assert addresses[0] == addresses[1] == addresses[2]
    held.go.clear()
    saver.save({"params": {"w": torch.ones(5)}}, step=4)
    held.go.set()
    saver.close()
    assert tree.equal(held.store.restore()[0], {"params": {"w": torch.ones(5)}})


def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", broken)


@pytest.mark.parametrize("call", ["poll", "wait", "close", "save"])
def test_the_next_call_raises_an_error_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store = Checkpoints(tmp_path / "run")
    store.save(make(1), step=1)
    saver = Saver(store)
    with monkeypatch.context() as patch:
        failing(patch)
        saver.save(make(2), step=2)
        while not saver._pending.finished(1.0):
            pass
    arguments: dict[str, Any] = {"tree": make(3), "step": 3} if call == "save" else {}
    with pytest.raises(CheckpointWriteError, match="broken"):
        getattr(saver, call)(**arguments)
    assert store.steps() == [1]
    saver.save(make(3), step=3)
    saver.close()
    assert store.steps() == [1, 3]


def test_an_error_in_the_block_is_not_covered_by_one_of_saving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def block() -> None:
        with Saver(Checkpoints(tmp_path)) as saver:
            saver.save(make(1), step=1)
            raise KeyError("mine")

    failing(monkeypatch)
    with pytest.raises(KeyError) as caught:
        block()
    assert "broken" in caught.value.__notes__[0]


def test_unsupported_trees_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="f"):
        Saver(Checkpoints(tmp_path)).save({"f": print}, step=1)


def test_waiting_has_a_limit(held: Held) -> None:
    saver = Saver(held, deadline=0.01)
    saver.save(make(1), step=1)
    for call in (lambda: saver.wait(0.01), saver.close):
        with pytest.raises(
            CheckpointTimeoutError, match=r"step 1 is still being written after 0\.01"
        ):
            call()
    held.go.set()
    while not held.store.steps():
        time.sleep(0.01)
    assert saver.wait() is None


def test_inline_saves_and_fails_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Checkpoints(tmp_path)
    threads, write = [], store.write

    class Watched:
        def write(self, snap: Snapshot) -> Path:
            threads.append(threading.get_ident())
            return write(snap)

    saver = Saver(Watched(), inline=True, staged=True)
    saver.save(make(1), step=1)
    assert threads == [threading.get_ident()]
    assert saver.poll() == tmp_path / "step-00000001"
    failing(monkeypatch)
    with pytest.raises(CheckpointWriteError, match="broken"):
        saver.save(make(2), step=2)
    assert saver.poll() is None


def test_a_checkpoint_is_written_even_if_no_thread_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_threads(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_threads)
    store = Checkpoints(tmp_path / "run")
    value = {"w": torch.arange(3 << 20)}
    with Saver(store) as saver:
        saver.save(value, step=1)
        assert store.steps() == [1]
        with monkeypatch.context() as patch:
            failing(patch)
            saver.save(value, step=2)
        with pytest.raises(CheckpointWriteError, match="broken"):
            saver.wait()
    monkeypatch.undo()
    assert tree.equal(load(store.path(1)), value)


def test_the_function_called_first_may_fail(tmp_path: Path) -> None:
    def failing() -> None:
        raise OSError(errno.EIO, "broken")

    saver = Saver(Checkpoints(tmp_path / "run"))
    saver.save(make(1), step=1, first=failing)
    with pytest.raises(CheckpointWriteError, match=r"checkpoint of step 1 was not saved: broken"):
        saver.wait()
    assert not (tmp_path / "run").exists()


def test_a_function_may_be_called_first(tmp_path: Path) -> None:
    store, seen = Checkpoints(tmp_path), []
    with Saver(store) as saver:
        saver.save(make(1), step=1, first=lambda: seen.append(store.steps()))
    assert seen == [[]]


def test_a_failure_that_nobody_waited_for_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch)
    savers = [Saver(Checkpoints(tmp_path))]
    savers[0].save(make(1), step=1)
    with pytest.warns(CheckpointWriteWarning, match=r"step 1 was not saved: .*broken"):
        savers.clear()


EXITING = """
import sys, torch
from functrain.checkpoint import Checkpoints, Saver
store = Checkpoints(sys.argv[1])
class Slow:
    def write(self, snap):
        import time
        time.sleep(float(sys.argv[3]))
        return store.write(snap)
saver = Saver(Slow(), deadline=float(sys.argv[2]))
saver.save({"w": torch.zeros(3 << 20)}, step=7)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("deadline", "slow", "steps"), [("60", "0.5", [7]), ("0.05", "30", [])])
def test_the_end_of_the_interpreter_waits_up_to_the_deadline(
    tmp_path: Path, deadline: str, slow: str, steps: list[int]
) -> None:
    command = [sys.executable, "-c", EXITING, str(tmp_path / "run"), deadline, slow]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert ended.returncode == 0
    assert Checkpoints(tmp_path / "run").steps() == steps
    assert ("step 7 was not saved" in ended.stderr) == (steps == [])
    if steps:
        assert load(tmp_path / "run" / "step-00000007")["w"].numel() == 3 << 20
