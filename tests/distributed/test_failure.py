"""One rank fails; all ranks end within seconds and say which rank failed, and how."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
import torch.distributed as dist

from functrain.distributed import World, connections, current
from functrain.errors import RankFailedError


def joined(timeout: float | None = None) -> World:
    """Join the others, and wait until they have: no rank fails while another still connects.

    Only then is the timeout set: on a busy machine, starting a rank takes longer.
    """
    world = current()
    world.barrier()
    if timeout is not None:
        connections.set_timeout(world.group, timedelta(seconds=timeout))
    return world


def one_raises(failing: int, where: str) -> None:
    world = joined()
    groups = [dist.new_group([0, world.size - 1])]
    with world.failing_together():
        for step in range(20):
            if step == 7 and world.rank == failing:
                raise KeyError(f"sample {step}")
            if where == "host":
                world.gathered(step)
            elif where == "another group" and world.rank in (0, world.size - 1):
                dist.all_reduce(torch.ones(3), group=groups[0])
            else:
                pending = [dist.all_reduce(torch.ones(3), async_op=True) for _ in range(2)]
                [each.wait() for each in pending]


@pytest.mark.parametrize("where", ["host", "device", "another group"])
@pytest.mark.parametrize("failing", [0, 2])
def test_an_exception_of_one_rank_ends_all(failing: int, where: str) -> None:
    found = ranks.outcomes(one_raises, 3, failing, where)
    error = found.pop(failing)
    assert type(error) is KeyError
    assert error.args == ("sample 7",)
    for other in found:
        assert type(other) is RankFailedError
        assert str(other).startswith(f"rank {failing} raised KeyError: 'sample 7'")
        assert other.rank == failing


def one_is_killed(failing: int) -> None:
    world = joined()
    with world.failing_together():
        for step in range(20):
            if step == 7 and world.rank == failing:
                os.kill(os.getpid(), signal.SIGKILL)
            world.gathered(step)


@pytest.mark.sweep
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_killed_rank_ends_all(failing: int) -> None:
    found = ranks.outcomes(one_is_killed, 3, failing)
    died = found.pop(failing)
    assert (type(died), died.code) == (ranks.DiedError, -signal.SIGKILL)
    for other in found:
        assert type(other) is RankFailedError, other
        assert str(other).startswith(f"rank {failing} ended")
        assert other.rank == failing


def one_hangs(failing: int, folder: Path) -> None:
    world = joined(timeout=2)
    try:
        with world.failing_together():
            while world.rank == failing and len(list(folder.iterdir())) < world.size - 1:
                time.sleep(0.05)
            dist.all_reduce(torch.ones(1))
    finally:
        (folder / str(world.rank)).touch()


@pytest.mark.parametrize("failing", [0, 1])
def test_a_hanging_rank_is_named_after_the_timeout(failing: int, tmp_path: Path) -> None:
    found = ranks.outcomes(one_hangs, 3, failing, tmp_path)
    assert type(found.pop(failing)) is RankFailedError  # on the rank itself, once it goes on
    for error in found:
        assert type(error) is RankFailedError
        waiting = r"ranks \d, \d wait in .*test_failure.py:\d+ `dist.all_reduce\(torch.ones\(1\)\)`"
        assert re.match(f"rank {failing} gave no answer within 2 s, while {waiting}", str(error))
        assert "py-spy" in str(error)


def one_is_stopped() -> None:
    world = joined(timeout=2)
    process = world.gathered(os.getpid())[1]
    if world.rank == 1:
        os.kill(process, signal.SIGSTOP)
    try:
        world.barrier()
    finally:
        os.kill(process, signal.SIGKILL)


def test_a_stopped_rank_is_named_after_the_timeout() -> None:
    first, second = ranks.outcomes(one_is_stopped, 2)
    assert str(first).startswith("rank 1 gave no answer within 2 s"), first
    assert type(second) is ranks.DiedError


def waits_for_one_that_waits() -> None:
    world = joined()
    with world.failing_together():
        if world.rank == 1:
            raise ValueError("early")
        dist.recv(torch.empty(1), src={0: 1, 2: 0}[world.rank])


def refuses_while_another_waits() -> None:
    world = joined()
    with world.failing_together():
        if world.rank == 1:
            raise ValueError("early")
        if world.rank == 0:
            while not world.is_broken:
                time.sleep(0.01)
            world.barrier()
        dist.recv(torch.empty(1), src=0)


@pytest.mark.parametrize("function", [waits_for_one_that_waits, refuses_while_another_waits])
def test_ranks_that_wait_for_a_rank_that_waits_or_refuses_end_too(function: Any) -> None:
    first, _, third = ranks.outcomes(function, 3)
    assert str(first) == str(third) == "rank 1 raised ValueError: early"


def each_raises() -> None:
    world = joined()
    with world.failing_together():
        raise ValueError(f"by rank {world.rank}")


def test_each_rank_raises_its_own_exception() -> None:
    found = ranks.outcomes(each_raises, 3)
    assert [(type(error), str(error)) for error in found] == [
        (ValueError, f"by rank {rank}") for rank in range(3)
    ]


def nested(failing: int) -> None:
    world = joined()
    with world.failing_together():
        dist.all_reduce(torch.ones(1))
        try:
            with world.failing_together(), world.failing_together():
                if world.rank == failing:
                    raise OSError("disk full")
                dist.all_reduce(torch.ones(1))
        except Exception as error:
            raise LookupError("listener") from error


def test_a_failure_in_nested_blocks_is_published_once() -> None:
    first, second, third = ranks.outcomes(nested, 3, 1)
    assert type(second) is LookupError
    for other in (first, third):  # wrapped by the code around, with the cause
        assert type(other) is LookupError


def goes_on(failing: int) -> list[str]:
    world = joined()
    found = []
    try:
        with world.failing_together():
            if world.rank == failing:
                raise ValueError("first")
            dist.all_reduce(torch.ones(1))
    except (ValueError, RankFailedError) as error:
        found.append(type(error).__name__)
    assert world.is_broken
    for collective in (world.barrier, lambda: world.gathered(1), lambda: world.broadcast(2)):
        with pytest.raises(RankFailedError, match=rf"^rank {failing} raised ValueError: first"):
            collective()
    with pytest.raises(RankFailedError, match="raised ValueError"), world.failing_together():
        dist.all_reduce(torch.ones(1))
    served_until_all_are_here(world)
    return found


def served_until_all_are_here(world: World) -> None:
    """Keep rank 0, which serves the store, until other ranks have used it."""
    store = world.group.get_group_store()
    store.set(f"here/{world.rank}", "")
    if world.rank == 0:  # another rank that waited could see the store end
        store.wait([f"here/{rank}" for rank in range(world.size)])


@pytest.mark.parametrize("failing", [0, 1])
def test_a_broken_group_refuses_collectives(failing: int) -> None:
    expected = [["RankFailedError"]] * 2
    expected[failing] = ["ValueError"]
    assert ranks.outcomes(goes_on, 2, failing) == expected


def busy() -> None:
    """Rank 1 works for a while when rank 0 fails; it learns of it at its next collective."""
    world = joined()
    with world.failing_together():
        if world.rank == 0:
            raise ValueError("early")
        time.sleep(1)
        dist.all_reduce(torch.ones(1))


def test_a_rank_that_serves_the_store_waits_for_the_others_to_read() -> None:
    first, second = ranks.outcomes(busy, 2)
    assert type(first) is ValueError
    assert str(second) == "rank 0 raised ValueError: early"


def fails_in_a_thread() -> None:
    """A thread of rank 0 fails, and the main thread hears of it and ends before rank 1 does."""
    world = joined()

    def work() -> None:
        with contextlib.suppress(ValueError), world.failing_together():
            raise ValueError("early")

    if world.rank == 0:
        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.5)
        with contextlib.suppress(RankFailedError):
            world.barrier()
        return
    time.sleep(2)
    world.barrier()


def test_every_thread_of_the_rank_that_serves_the_store_waits_for_the_others() -> None:
    _, second = ranks.outcomes(fails_in_a_thread, 2)
    assert str(second) == "rank 0 raised ValueError: early"


def leaves_early() -> None:
    world = joined()
    with world.failing_together():
        if world.rank != 1:
            world.barrier()


def test_a_rank_that_does_fewer_collectives_is_named() -> None:
    first, second, third = ranks.outcomes(leaves_early, 3)
    assert second is None
    for error in (first, third):
        assert str(error).startswith("rank 1 left the group while rank"), error
        assert "in functrain's World.gathered in test_failure.py:" in str(error)
        assert "`world.barrier()`. Call the same operations on every rank" in str(error)


def goes_apart() -> None:
    world = joined(timeout=2)
    with world.failing_together():
        if world.rank == 1:
            dist.all_reduce(torch.ones(3))
        else:
            world.barrier()


def test_ranks_that_wait_for_different_operations_are_named() -> None:
    for error in ranks.outcomes(goes_apart, 3):
        assert type(error) is RankFailedError
        assert error.rank is None
        assert str(error).startswith("ranks wait for different operations: "), error
        assert re.search(r"ranks 0, 2 wait in functrain's .*`world.barrier\(\)`", str(error))
        assert re.search(r"rank 1 waits in .*`dist.all_reduce\(torch.ones\(3\)\)`", str(error))


def interrupted(kind: type[BaseException]) -> None:
    world = joined()
    with world.failing_together():
        if world.rank == 1:
            raise kind
        world.barrier()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_rank_ends_the_others(kind: type[BaseException]) -> None:
    first, second = ranks.outcomes(interrupted, 2, kind)
    assert type(second) is kind
    assert str(first) == f"rank 1 raised {kind.__name__}"


def generator() -> list[Any]:
    world = joined()

    def steps() -> Any:
        with world.failing_together():
            yield from range(10)

    for step in steps():
        if step == 3:
            break
    world.barrier()
    return [world.is_broken]


def test_closing_a_generator_is_no_failure() -> None:
    assert ranks.outcomes(generator, 2) == [[False]] * 2


def wrapped() -> None:
    """A library between turns the error of the collective into another one."""
    world = joined()
    with world.failing_together():
        if world.rank == 1:
            raise ValueError("bad batch")
        try:
            dist.all_reduce(torch.ones(1))
        except RuntimeError:
            raise OSError("could not save") from None


def unrelated() -> None:
    world = joined()
    with world.failing_together():
        if world.rank == 1:
            raise RuntimeError("the model is called gloo")
        world.barrier()


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (wrapped, ValueError("bad batch")),
        (unrelated, RuntimeError("the model is called gloo")),
    ],
)
def test_an_error_of_a_rank_is_its_own_and_a_wrapped_consequence_names_it(
    function: Any, error: Exception
) -> None:
    first, second = ranks.outcomes(function, 2)
    assert type(second) is type(error)
    assert str(first) == f"rank 1 raised {type(error).__name__}: {error}"
