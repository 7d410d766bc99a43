"""The enumerator of crash states notices each part of the protocol that is left out."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crashes import states as crashes_states
from crashes.explore import explore
from crashes.log import Recorder
from crashes.operations import Change, Data, Log, Mark, Size, Sync
from crashes.scenarios import SCENARIOS, Scenario

from functrain.errors import FunctrainError, FunctrainWarning

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
ENOUGH = 200


def is_file(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def without_files(patch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync
    patch.setattr(os, "fsync", lambda each: None if is_file(each) else fsync(each))


def without_directories(patch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync
    patch.setattr(os, "fsync", lambda each: fsync(each) if is_file(each) else None)


def too_late(patch: pytest.MonkeyPatch) -> None:
    """Sync every file, but only after the rename."""
    fsync, rename = os.fsync, os.rename
    waiting: list[int] = []

    def renamed(old: Any, new: Any) -> None:
        rename(old, new)
        while waiting:
            fsync(waiting[0])
            os.close(waiting.pop(0))

    patch.setattr(os, "fsync", lambda each: waiting.append(os.dup(each)))
    patch.setattr(os, "rename", renamed)


def careless(scenario: Scenario, forget: Callable[[pytest.MonkeyPatch], None]) -> Scenario:
    def act(root: Path, recorder: Recorder) -> None:
        with pytest.MonkeyPatch.context() as patch:
            forget(patch)
            scenario.act(root, recorder)

    return Scenario(scenario.name, scenario.prepare, act, scenario.check)


@pytest.mark.row(35)
@pytest.mark.sweep("forget")
@pytest.mark.parametrize("forget", [without_files, without_directories, too_late])
@pytest.mark.parametrize("name", ["the first", "the next", "one replaced"])
def test_a_careless_writer_is_caught(
    name: str, forget: Callable[[pytest.MonkeyPatch], None], tmp_path: Path
) -> None:
    scenario = careless(BY_NAME[name], forget)
    log = scenario.record(tmp_path / "written")
    with pytest.raises((AssertionError, FunctrainError, FunctrainWarning)):
        explore(scenario, log, tmp_path / "crashed", ENOUGH)


def test_a_careful_writer_is_not(tmp_path: Path) -> None:
    log = BY_NAME["the next"].record(tmp_path / "written")
    assert explore(BY_NAME["the next"], log, tmp_path / "crashed", ENOUGH) > ENOUGH // 2


def found(log: Log, tries: int = 300) -> list[crashes_states.State]:
    """States after the last operation."""
    for point in crashes_states.points(log):
        disk = point.disk
    return list(crashes_states.states(disk, random.Random(0), tries))


def test_synced_bytes_survive() -> None:
    synced = [Size(1, 0), Change(((0, "a", 1),)), Data(1, 0, b"abc"), Sync(1), Sync(0)]
    assert found(Log(operations=[*synced, Mark("returned", 1)])) == [{"a": b"abc"}] * 300


def test_a_synced_file_may_lose_its_name() -> None:
    log = Log(operations=[Size(1, 0), Change(((0, "a", 1),)), Data(1, 0, b"abc"), Sync(1)])
    states = found(log)
    assert {} in states
    assert {"a": b"abc"} in states
    assert all(state in ({}, {"a": b"abc"}) for state in states)


def test_a_name_may_exist_without_its_bytes() -> None:
    data = bytes(range(1, 251)) * 6  # three sectors
    log = Log(operations=[Size(1, 0), Change(((0, "a", 1),)), Data(1, 0, data), Sync(0)])
    contents = {state["a"] for state in found(log, 2000)}
    assert {b"", data, data[:512], data[:1024], bytes(1500)} <= contents
    assert data[:512] + bytes(512) + data[1024:] in contents
    assert len(contents) > 100  # rubbish


def test_appending_does_not_endanger_synced_bytes() -> None:
    first, second = b"synced" * 100, bytes(range(1, 201)) * 5
    log = Log({0: {"a": 1}}, {1: first}, [Data(1, len(first), second)])
    contents = {state["a"] for state in found(log)}
    assert all(content is not None and content.startswith(first) for content in contents)
    assert {first, first + second, first + bytes(1000)} <= contents
    over = Log({0: {"a": 1}}, {1: first}, [Data(1, 0, bytes(600))])
    assert {state["a"] for state in found(over)} == {
        first,
        bytes(600),
        bytes(512) + first[512:],
        first[:512] + bytes(88),
    }
    again = Log({0: {"a": 1}}, {1: first}, [Size(1, 0), Data(1, 0, b"new")])
    assert len({state["a"] for state in found(again)}) > 10  # rubbish


def test_a_rename_is_atomic() -> None:
    log = Log({0: {"a": 1, "b": 2}}, {1: b"1", 2: b"2"}, [Change(((0, "a", None), (0, "b", 1)))])
    states = found(log)
    assert {"a": b"1", "b": b"2"} in states
    assert {"b": b"1"} in states
    assert all(len(state) == 2 or state == {"b": b"1"} for state in states)


def test_the_recorder_sees_inodes_not_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    recorder = Recorder(tmp_path)
    with recorder.installed():
        descriptor = os.open(tmp_path / "a", os.O_WRONLY)
        os.rename(tmp_path / "a", tmp_path / "b")
        os.write(descriptor, b"new")
        again = os.dup(descriptor)
        os.close(descriptor)
        os.fsync(again)
        os.ftruncate(again, 2)
        os.close(again)
    assert recorder.log.operations == [
        Change(((0, "a", None), (0, "b", 1))),
        Data(1, 0, b"new"),
        Sync(1),
        Size(1, 2),
    ]
    assert crashes_states.final(recorder.log) == {"b": b"ne"}
    assert {len(state) for state in found(recorder.log)} == {1}
