"""Work beside is begun once or never, and its end is known, whatever becomes of the thread."""

from __future__ import annotations

import _thread
import threading
import weakref
from typing import Any

import pytest

from functrain.checkpoint.storage import worker_thread
from functrain.checkpoint.storage.worker_thread import WorkerThread

START = _thread.start_new_thread


class Gate:
    """Work that goes on when it is let, and notes in which thread it was done."""

    def __init__(self) -> None:
        self.go, self.done = threading.Event(), list[int]()

    def __call__(self) -> None:
        assert self.go.wait(10)
        self.done.append(threading.get_ident())


def test_it_runs_in_another_thread_and_holds_nothing_at_its_end() -> None:
    gate = Gate()
    work = WorkerThread(gate)
    assert work.start()
    assert not work.wait(0.01)
    gate.go.set()
    assert work.wait()
    assert work.wait(0.0)
    assert gate.done != [threading.get_ident()]
    assert len(gate.done) == 1
    gone = weakref.ref(gate)
    del gate
    assert gone() is None


def test_waiting_ends_at_once_if_nothing_was_started() -> None:
    """A signal may come before the start."""
    assert WorkerThread(Gate()).wait()


def test_a_thread_that_never_starts_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_thread, "_PATIENCE", 0.05)
    monkeypatch.setattr(_thread, "start_new_thread", lambda *_: START(lambda: None, ()))
    work = WorkerThread(Gate())
    assert not work.start()
    assert work.wait()


def test_a_thread_that_starts_too_late_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[Any] = []
    monkeypatch.setattr(worker_thread, "_PATIENCE", 0.05)
    monkeypatch.setattr(_thread, "start_new_thread", lambda run, _: late.append(run))
    gate = Gate()
    gate.go.set()
    work = WorkerThread(gate)
    assert not work.start()
    late[0]()
    assert gate.done == []


@pytest.mark.parametrize("begun", [False, True])
def test_a_signal_during_start_leaves_a_known_state(
    monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    def interrupted(run: Any, arguments: Any) -> None:
        if begun:
            START(run, arguments)
        raise KeyboardInterrupt

    gate = Gate()
    gate.go.set()
    monkeypatch.setattr(_thread, "start_new_thread", interrupted)
    work = WorkerThread(gate)
    with pytest.raises(KeyboardInterrupt):
        work.start()
    assert work.wait(10)
    assert len(gate.done) in ((0, 1) if begun else (0,))
