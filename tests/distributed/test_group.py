"""Real processes join, exchange messages and leave."""

from __future__ import annotations

import os
import weakref

import pytest
import ranks
import torch
import torch.distributed as dist

import functrain as ft
from functrain.distributed import World, current
from functrain.distributed.joining import leave
from functrain.errors import ConfigurationError, ProcessGroupError, RankMismatchError


def joined() -> tuple[int, int, str, bool]:
    world = current()
    assert current() == world
    total = torch.tensor([world.rank + 1.0])
    dist.all_reduce(total)
    return world.rank, world.size, dist.get_backend(), total.item() == sum(range(world.size + 1))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_ranks_of_a_launcher_join_one_group(n: int) -> None:
    assert ranks.run(joined, n) == [(rank, n, "gloo", True) for rank in range(n)]


def exchanged() -> tuple[object, ...]:
    world = current()
    found = (
        world.broadcast({"from": world.rank}),
        world.broadcast({"from": world.rank}, source=1),
        world.gathered(world.rank**2),
    )
    world.barrier()
    return (*found, world.is_broken)


def test_values_travel_between_hosts() -> None:
    expected = ({"from": 0}, {"from": 1}, [0, 1, 4], False)
    assert ranks.run(exchanged, 3) == [expected] * 3


@pytest.mark.parametrize("timeout", [0, -1.5])
def test_a_timeout_is_positive(timeout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="more than 0 seconds, got"):
        current(timeout=timeout)


def test_one_process_needs_no_group() -> None:
    world = current()
    assert world == World(0, 1, None)
    assert not dist.is_initialized()
    assert (world.broadcast("a"), world.gathered("b"), world.is_broken) == ("a", ["b"], False)
    world.require_equal({"data": 1})
    with pytest.raises(KeyError), world.failing_together():
        raise KeyError


def group_of_the_user() -> tuple[object, ...]:
    from datetime import timedelta

    os.environ["WORLD_SIZE"] = "7"  # must not matter
    store = dist.TCPStore("127.0.0.1", int(os.environ["MASTER_PORT"]), is_master=True)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=timedelta(0, 9))
    return current() == World(0, 1, dist.group.WORLD), current(timeout=3).size


def test_a_group_of_the_user_is_used() -> None:
    assert ranks.run(group_of_the_user, 1) == [(True, 1)]


def left() -> tuple[bool, str]:
    world, model = current(), torch.nn.Linear(2, 1)
    program = ft.sharded(ft.program(model, lambda m, b: m(b).mean(), ft.optim.SGD(lr=0.1)))
    state, _ = program.train_step(program.init(), torch.ones(2, 2))
    group = weakref.ref(dist.group.WORLD)
    leave()
    gone = group() is None
    with pytest.raises(ProcessGroupError) as caught:
        world.barrier()
    del program, state  # only now
    return gone, str(caught.value)


def test_nothing_keeps_the_group_after_it_was_left() -> None:
    # A thread of gloo that releases a tensor while the interpreter ends aborts the process.
    for gone, message in ranks.run(left, 2):
        assert gone
        assert "has left its process group" in message


def fail_after_leaving(world: World) -> None:
    with world.failing_together():
        leave()
        raise ValueError("of the user")


def left_and_joined_again() -> list[object]:
    old = current()
    with pytest.raises(ValueError, match="of the user"):
        fail_after_leaving(old)
    store = dist.TCPStore("127.0.0.1", ranks.free_port(), is_master=True)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    with pytest.raises(ProcessGroupError, match="has left its process group"):
        _ = old.group
    return [current() == old, current().gathered(1)]


def test_a_world_is_not_that_of_a_later_group() -> None:
    assert ranks.run(left_and_joined_again, 1) == [[False, [1]]]


def compared(values: list[dict[str, str | int]]) -> None:
    world = current()
    world.require_equal(values[world.rank])


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        (["a", "b", "a"], ["data: rank 1 has 'b', ranks 0, 2 'a'"]),
        (["a", "b"], ["data: rank 1 has 'b', rank 0 'a'"]),
        (["a", "b", "b"], ["data: rank 0 has 'a', ranks 1, 2 'b'"]),
        (["a", "b", 3, "a"], ["data: rank 1 has 'b'", "data: rank 2 has 3, ranks 0, 3 'a'"]),
    ],
)
def test_every_rank_names_those_that_differ(values: list[str | int], lines: list[str]) -> None:
    given = [{"recipe": "same", "data": value} for value in values]
    found = ranks.outcomes(compared, len(values), given)
    assert len({str(error) for error in found}) == 1
    for error in found:
        assert type(error) is RankMismatchError
        assert "recipe" not in str(error)
        for line in lines:
            assert line in str(error)


def test_a_value_that_only_some_ranks_have_differs() -> None:
    (error, _) = ranks.outcomes(compared, 2, [{"data": 1}, {"data": 1, "code": 2}])
    assert "code: rank 1 has 2, rank 0 None" in str(error)
    assert ranks.run(compared, 2, [{"data": 1, "code": 2}, {"code": 2, "data": 1}]) == [None, None]


@pytest.mark.parametrize("sizes", [(3, 2, 3), (2, 3)])
def test_ranks_meet_in_a_store_that_keeps_what_earlier_ones_wrote(sizes: tuple[int, ...]) -> None:
    # As under torchrun: an agent serves the store, and a node that leaves or joins does not count
    # as a restart.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    agent = {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": str(store.port)}
    for n in sizes:
        found = ranks.outcomes(joined, n, variables=agent)
        assert found == [(rank, n, "gloo", True) for rank in range(n)]


def join_soon() -> None:
    current(timeout=2)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_rank_that_does_not_come_is_an_error_in_an_agents_store(missing: int) -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    agent = {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": str(store.port)}
    (error,) = ranks.outcomes(
        join_soon, 1, variables={**agent, "WORLD_SIZE": "2", "RANK": str(1 - missing)}
    )
    assert type(error) is ProcessGroupError
    assert "all 2 processes were started" in str(error)
