"""The store of a process group: how processes meet in it, and report after failures."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar
from uuid import uuid4

import torch.distributed as dist
from torch.distributed import DistStoreError, ProcessGroup
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from functrain.distributed.launch import Launch

T = TypeVar("T")

_POLL = 0.01


def report(group: ProcessGroup, what: str, text: str = "") -> None:
    """Report that this rank did something."""
    group.get_group_store().set(f"functrain/{what}/{group.rank()}", text)


def missing(group: ProcessGroup, what: str) -> list[int]:
    """Return the ranks that have not reported something."""
    store = group.get_group_store()
    return [r for r in range(group.size()) if not store.check([f"functrain/{what}/{r}"])]


def places(group: ProcessGroup) -> dict[str, list[int]]:
    """Return the ranks that have reported a failed collective, by the places of those."""
    store, found = group.get_group_store(), dict[str, list[int]]()
    for rank in set(range(group.size())).difference(missing(group, "failed")):
        found.setdefault(store.get(f"functrain/failed/{rank}").decode(), []).append(rank)
    return found


def waiting(group: ProcessGroup) -> str:
    """Return which ranks wait where, for a message."""
    return "; ".join(
        f"{listed(ranks)} {'waits' if len(ranks) == 1 else 'wait'} in {place}"
        for place, ranks in places(group).items()
    )


def listed(ranks: Sequence[int]) -> str:
    """Return the numbers of ranks for a message."""
    return f"rank{'' if len(ranks) == 1 else 's'} {', '.join(map(str, ranks))}"


def wait_for_others(
    group: ProcessGroup, what: str, seconds: float, except_for: Sequence[int] = ()
) -> None:
    """Report that this rank did something; rank 0, which serves the store, waits for the others.

    Every thread of rank 0 waits until the same time, since the first one to return may be the one
    that ends the process.
    """
    serves = group.rank() == 0 and not agent_serves()
    key = f"functrain/{what}/{group.rank()}"
    with contextlib.suppress(dist.DistError):
        first = float(group.get_group_store().compare_set(key, "", str(time.monotonic())))
        if serves:
            left = first + seconds - time.monotonic()
            poll(left, lambda: set(except_for).issuperset(missing(group, what)))


def poll(seconds: float, found: Callable[[], T]) -> T:
    """Return the first true value within a time, or the last one."""
    end = time.monotonic() + seconds
    while not (value := found()) and time.monotonic() < end:
        time.sleep(_POLL)
    return value


def agent_serves() -> bool:
    """Return whether torchrun's agent serves the store, instead of the process of rank 0."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def meet(launch: Launch, timeout: timedelta) -> Store:
    """Return the store of all ranks, which rank 0 serves, or under torchrun its agent."""
    url = f"tcp://{launch.address}:{launch.port}"
    store, _, _ = next(rendezvous(url, launch.rank, launch.size, timeout=timeout))
    store.set_timeout(timeout)
    if not agent_serves():
        return PrefixStore("functrain", store)
    # The store of an agent keeps the addresses of processes that a restart replaced. The count of
    # restarts does not tell them apart if nodes leave or join (pytorch/pytorch#135712).
    found = _invite(store, launch.size, timeout) if launch.rank == 0 else _follow(store, launch)
    return PrefixStore(f"functrain/{found}", store)


def _invite(store: Store, size: int, timeout: timedelta) -> str:
    """Return a new name for a meeting after every other rank has accepted it.

    A question may be that of a dead process, so answer until a living one accepts.
    """
    name, end = uuid4().hex, time.monotonic() + timeout.total_seconds()
    waiting = set(range(1, size))
    while waiting:
        for rank in list(waiting):
            if store.check([f"functrain/ask/{rank}"]):
                store.set(f"functrain/answer/{store.get(f'functrain/ask/{rank}').decode()}", name)
            if store.check([f"functrain/accept/{name}/{rank}"]):
                waiting.remove(rank)
        if time.monotonic() > end:
            missing = ", ".join(map(str, sorted(waiting)))
            raise DistStoreError(f"ranks {missing} did not come within {timeout}")
        time.sleep(_POLL)
    return name


def _follow(store: Store, launch: Launch) -> str:
    """Ask rank 0 for the name of the meeting, and accept it."""
    question = uuid4().hex
    store.set(f"functrain/ask/{launch.rank}", question)
    name: str = store.get(f"functrain/answer/{question}").decode()
    store.set(f"functrain/accept/{name}/{launch.rank}", "")
    return name
