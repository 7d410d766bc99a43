"""Reports of ranks in the store of their process group, after nothing collective works there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch.distributed as dist
from torch.distributed import ProcessGroup

from functrain.distributed.meeting import agent_serves

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
