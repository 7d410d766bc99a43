"""One writer at a time; errors name a directory that cannot be used."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import pytest
import torch
from processes import Child

from functrain.checkpoint import Checkpoints
from functrain.errors import (
    CheckpointFormatError,
    FunctrainError,
    RunDirectoryBusyError,
    RunDirectoryError,
)

HOLDER = """
import sys, time
from functrain.checkpoint import Checkpoints
with Checkpoints(sys.argv[1]).lock():
    print("locked", flush=True)
    time.sleep(60)
"""
TREE = {"w": torch.ones(1)}


def holder(directory: Path) -> Child:
    process = Child("-c", HOLDER, str(directory))
    assert process.wait_for_lines(1) == ["locked\n"]
    return process


@pytest.mark.slow
def test_a_second_writer_is_refused_while_the_first_is_alive(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path / "run")
    store.save(TREE, step=1)
    other = holder(store.directory)
    with pytest.raises(RunDirectoryBusyError, match=f"process {other.pid} on .*run"):
        store.save(TREE, step=2)
    assert store.steps() == [1]
    assert store.restore()[1].step == 1  # reading needs no lock
    other.kill()
    other.wait()
    store.save(TREE, step=2)
    assert store.steps() == [1, 2]


@pytest.mark.slow
def test_the_lock_of_a_dead_writer_may_live_on_in_its_children(tmp_path: Path) -> None:
    orphaning = HOLDER.replace(
        "time.sleep(60)",
        "import os; child = os.fork() or time.sleep(60); print(child, flush=True); os._exit(0)",
    )
    store = Checkpoints(tmp_path)
    saver = threading.Thread(target=store.save, args=(TREE,), kwargs={"step": 1})
    process = Child("-c", orphaning, str(tmp_path))
    locked, child = process.wait_for_lines(2)
    assert (locked, process.wait()) == ("locked\n", 0)
    saver.start()
    saver.join(timeout=0.2)
    assert store.steps() == []
    os.kill(int(child), signal.SIGKILL)
    saver.join()
    assert store.steps() == [1]


def test_the_lock_is_reentrant(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    with store.lock():
        store.save(TREE, step=1)
        with Checkpoints(tmp_path).lock():
            store.save(TREE, step=2)
        if os.fork() == 0:  # a child is another process
            try:
                store.save(TREE, step=3)
            except RunDirectoryBusyError:
                os._exit(17)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 17
    assert store.steps() == [1, 2]


def test_the_lock_of_another_machine_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Checkpoints(tmp_path)
    with store.lock():
        monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
        with pytest.raises(RunDirectoryBusyError, match=str(os.getpid())), store.lock():
            pass


def test_unusable_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    store = Checkpoints(tmp_path / "file")
    with pytest.raises(RunDirectoryError, match=r"file cannot be used: Not a directory"):
        store.steps()
    with pytest.raises(RunDirectoryError, match=r"file cannot be used"):
        store.save(TREE, step=1)
    with pytest.raises(RunDirectoryError, match=r"/proc/functrain cannot be used"):
        Checkpoints("/proc/functrain").save(TREE, step=1)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refuse)
        with pytest.raises(RunDirectoryError, match="Permission denied"):
            Checkpoints(tmp_path).restore()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_permissions_of_another_user(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    Checkpoints(directory).save(TREE, step=1)
    for mode in (0o555, 0o000):
        directory.chmod(mode)
        if os.fork() == 0:
            code = 0
            try:
                os.chdir("/")
                for parent in directory.parents:
                    if os.stat(parent).st_uid == 0 and parent != Path("/"):
                        os.chmod(parent, 0o755)
                os.setuid(65534)
                Checkpoints(directory).save(TREE, step=2)
            except RunDirectoryError as error:
                code = 17 if "Permission denied" in str(error) else 1
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 17
    directory.chmod(0o755)


def test_format_mark(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.save(TREE, step=1)
    mark = tmp_path / "FORMAT"
    assert mark.read_text() == "functrain run directory, format 1.0\n"
    mark.write_text("damaged")
    store.save(TREE, step=2)
    mark.write_text("functrain run directory, format 2.0\n")
    for call in (store.restore, store.prune, lambda: store.save(TREE, step=3)):
        with pytest.raises(CheckpointFormatError, match="newer functrain"):
            call()


def test_errors_are_of_the_nearest_builtin() -> None:
    assert issubclass(RunDirectoryBusyError, OSError)
    assert issubclass(RunDirectoryBusyError, FunctrainError)
