"""If a rank fails, every rank raises, and the older or the newer checkpoint is there."""

from __future__ import annotations

import errno
import itertools
import os
import random
import re
import signal
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import placed_states
import pytest
import ranks
import torch
from crashes import kill
from crashes.faults import Failing

import functrain as ft
from functrain import tree
from functrain.checkpoint import Checkpoints
from functrain.checkpoint.together import saving
from functrain.distributed import World, current
from functrain.errors import (
    CheckpointExistsError,
    DirectoryNotSharedError,
    FunctrainError,
    RankFailedError,
    RankMismatchError,
    RunDirectoryBusyError,
    UnsupportedError,
)

OLD, NEW = placed_states.whole(1), placed_states.whole(2)


def hidden(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if re.match(r"\.step|\.state", name)]


def attempt(save: Any) -> tuple[str, int | None, str] | None:
    """Return the class, number and message of the error that a save raises."""
    try:
        save()
    except FunctrainError as error:
        return type(error).__name__, getattr(error, "errno", None), str(error)
    return None


def fail_each_call(directory: Path, failing_rank: int) -> list[Any]:
    """Let each system call of a rank fail in turn; return what this rank saw."""
    world = current()
    store, found = Checkpoints(directory), []
    store.save(placed_states.placed(world, 1), step=1)
    for nth in range(1, 200):
        state = placed_states.placed(world, 2)
        with pytest.MonkeyPatch.context() as patch:
            failing = None
            if world.rank == failing_rank:
                failing = Failing(patch, nth, errno.ENOSPC)
            told = attempt(partial(store.save, state, step=2))
        loaded, manifest = store.restore()
        newest = {1: OLD, 2: NEW}[manifest.step or 0]
        failed = world.broadcast("" if failing is None else failing.failed, failing_rank)
        found.append((failed, told, tree.equal(loaded, newest)))
        world.barrier()
        store.save(state, step=2)
        left = hidden(directory)
        world.barrier()
        if world.rank == 0:
            for path in (directory / "step-00000002").iterdir():
                path.unlink()
            (directory / "step-00000002").rmdir()
        world.barrier()
        assert left == []
        if not failed:
            break
    return found


@pytest.mark.row(35)
def test_every_call_of_rank_0_failing(tmp_path: Path) -> None:
    found = ranks.run(fail_each_call, 2, tmp_path / "run", 0)
    failures = set()
    for (failed, told, intact), (_, other, also_intact) in zip(*found, strict=True):
        failures.add(failed)
        assert intact
        assert also_intact
        assert (told is None) == (other is None)
        if told is not None and other is not None:
            assert told[:2] == other[:2]
            assert told[0] in ("CheckpointWriteError", "RunDirectoryError")
            assert told[1] == errno.ENOSPC
    assert failures >= {"open", "pwrite", "fsync", "close", "mkdir", "rename", "write"}
    assert found[0][-1][:2] == ("", None)


def save_unreadable(directory: Path) -> list[Any]:
    """Save where rank 1 cannot read what it holds; then again, where it can."""
    world = current()
    state = placed_states.placed(world, 1)
    with pytest.MonkeyPatch.context() as patch:
        if world.rank == 1:
            patch.setattr(saving, "byte_range", lambda *_: 1 / 0)
        told = attempt(partial(ft.save, directory / "state", state))
    world.barrier()
    return [told, os.listdir(directory), attempt(partial(ft.save, directory / "state", state))]


def test_a_rank_that_fails_to_send(tmp_path: Path) -> None:
    first, _ = ranks.outcomes(save_unreadable, 2, tmp_path)
    assert first[0][0] == RankFailedError.__name__
    assert "rank 1 raised ZeroDivisionError" in first[0][2]
    assert first[1:] == [[], None]


def save_apart(directory: Path) -> list[Any]:
    """Save where every rank has a directory of its own under the same name."""
    world = current()
    own = directory / str(world.rank)
    own.mkdir()
    os.chdir(own)
    state = placed_states.placed(world, 1)
    told = attempt(partial(ft.save, "/proc/self/cwd/state", state))
    saved = attempt(partial(ft.save, directory / "state", state))
    return [told, saved, os.listdir(own)]


def test_a_directory_that_is_not_shared(tmp_path: Path) -> None:
    for told, saved, left in ranks.run(save_apart, 2, tmp_path):
        assert told[:2] == (DirectoryNotSharedError.__name__, errno.ENOENT)
        assert "rank 1 on" in told[2]
        assert "/proc/self/cwd" in told[2]
        assert saved is None
        assert left == []
    assert tree.equal(ft.load(tmp_path / "state"), OLD)


def different(world: World, case: str) -> dict[str, Any]:
    """Return a state in which rank 1 differs from rank 0."""
    state = placed_states.placed(world, 1)
    if world.rank != 1:
        return state
    if case == "copy":
        state["params"]["matrix"][36, 63] += 1e-6
    elif case == "shape":
        state["params"]["matrix"] = torch.ones(3)
    elif case == "placement":
        state["optimizer"]["rows"]["half"] = placed_states.whole(2)["params"]["half"]
    elif case == "missing":
        del state["optimizer"]["rows"]["half"]
    elif case == "more":
        state["optimizer"]["more"] = torch.ones(2)
    elif case == "alias":
        state["params"]["integers"] = state["params"]["bytes"]
    else:
        assert case == "unsupported"
        state["params"]["matrix"] = object()
    return state


CASES = ("copy", "shape", "placement", "missing", "more", "alias", "unsupported")


def save_different(directory: Path) -> list[Any]:
    """Try to save states that differ between ranks, and a last one that does not."""
    world = current()
    found = [
        attempt(partial(ft.save, directory / case, different(world, case), step=1))
        for case in CASES
    ]
    state = placed_states.placed(world)
    later = attempt(partial(ft.save, directory / "s", state, step=world.rank))
    ft.save(directory / "last", placed_states.placed(world, 1))
    return [*found, later]


def test_states_that_differ_between_ranks(tmp_path: Path) -> None:
    found = ranks.run(save_different, 2, tmp_path)
    for first, second in zip(*found, strict=True):
        assert first[:2] == second[:2]
        assert "rank 1" in first[2] or "rank 1" in second[2]
    assert [first[0] for first in found[0]] == [
        *[RankMismatchError.__name__] * 6,
        UnsupportedError.__name__,
        RankMismatchError.__name__,
    ]
    assert "params.matrix is not the same on rank 1" in found[0][0][2]
    assert tree.equal(ft.load(tmp_path / "last"), OLD)


def save_over(directory: Path) -> list[Any]:
    world = current()
    state = placed_states.placed(world, 1)
    told = attempt(partial(ft.save, directory / "state", state))
    with Checkpoints(directory / "held").lock() if world.rank == 0 else nullcontext():
        world.barrier()
        Checkpoints(directory / "held").save(state, step=1)  # only rank 0 needs the lock
    return [told, attempt(partial(Checkpoints(directory / "busy").save, state, step=1))]


def test_errors_of_rank_0_reach_every_rank(tmp_path: Path) -> None:
    ft.save(tmp_path / "state", OLD)
    with Checkpoints(tmp_path / "busy").lock():
        found = ranks.run(save_over, 2, tmp_path)
    for exists, busy in found:
        assert exists[:2] == (CheckpointExistsError.__name__, errno.EEXIST)
        assert busy[:2] == (RunDirectoryBusyError.__name__, errno.EBUSY)
    assert Checkpoints(tmp_path / "held").steps() == [1]


def die_at_message(nth: int) -> None:
    """Kill this process as it takes part in a broadcast for the n-th time."""
    counts, broadcast = itertools.count(1), World.broadcast

    def counted(world: World, *args: Any) -> Any:
        if next(counts) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return broadcast(world, *args)

    World.broadcast = counted  # type: ignore[method-assign]


def save_until_killed(directory: Path, rank: int, nth: int, torn: bool) -> str:
    """Save one step, then others while a rank kills itself at a system call or message."""
    world = current()
    store = Checkpoints(directory, keep_last=2)
    store.save(placed_states.placed(world, 1), step=1)
    state = placed_states.placed(world, 2)
    if world.rank == rank:
        kill._arm(nth, torn) if rank == 0 else die_at_message(nth)
    try:
        store.save(state, step=2)
    except RankFailedError as error:
        return str(error)
    return "saved"


# Calls of rank 0, and messages of rank 1.
SOME = [(0, nth) for nth in (3, 18, 30, 44)] + [(1, nth) for nth in (2, 4)]
MANY = [(0, nth) for nth in range(1, 48, 2)] + [(1, nth) for nth in range(1, 8)]


@pytest.mark.row(35)
@pytest.mark.parametrize(
    "points", [SOME, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.long])]
)
def test_killed_at_any_call(tmp_path: Path, points: list[tuple[int, int]]) -> None:
    chance = random.Random(0)
    deaths = 0
    for number, (rank, nth) in enumerate(points):
        directory = tmp_path / str(number)
        torn = chance.random() < 0.5
        outcomes = ranks.outcomes(save_until_killed, 2, directory, rank, nth, torn)
        store = Checkpoints(directory)
        loaded, manifest = store.restore()
        died = isinstance(outcomes[rank], ranks.DiedError)
        deaths += died
        assert tree.equal(loaded, {1: OLD, 2: NEW}[manifest.step or 0]), (rank, nth)
        assert died == ("rank" in str(outcomes[1 - rank])), outcomes
        if not died:
            assert manifest.step == 2
        with store.lock():
            assert hidden(directory) == []
    assert deaths >= len(points) * 0.8
