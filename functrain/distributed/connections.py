"""The connections of this process to other ranks: which are closed, and closing them all.

Destroying a process group of gloo closes its sockets only once nothing refers to the group, and a
device mesh or an unfinished collective does. A receive that times out closes them at once (gloo's
``UnboundBuffer::waitRecv``), so that other ranks stop waiting. Only this file depends on that, and
on torch's private list of process groups.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroup, distributed_c10d

_TAG = 0x66756E63  # of messages that are never received
_SHORT = timedelta(milliseconds=1)


def close_all() -> None:
    """Close the connections of every process group of this process; nothing works after that."""
    for group in list(distributed_c10d._world.pg_map):
        backends = dict(each.split(":") for each in dist.get_backend_config(group).split(","))
        for device, backend in backends.items():
            if (device, backend) == ("cpu", "gloo"):
                _close(group)
            elif backend not in ("gloo", "fake"):  # gloo for other devices is the same object
                group._get_backend(torch.device(device)).abort()


def _close(group: ProcessGroup) -> None:
    peers = [rank for rank in range(group.size()) if rank != group.rank()]
    for peer in peers:
        # The first receive that times out closes the connections to all peers. A receive from a
        # peer that is gone fails at once, and closes none.
        with contextlib.suppress(RuntimeError):
            group.recv([torch.empty(1)], peer, _TAG).wait(_SHORT)


def set_timeout(group: ProcessGroup, timeout: timedelta) -> None:
    """Set the longest time that later collectives of a group wait for a rank."""
    distributed_c10d._set_pg_timeout(timeout, group)


def closed_peers(group: ProcessGroup) -> list[int]:
    """Return the ranks whose end of a connection is closed; sending to them fails at once."""
    if "gloo" not in dist.get_backend_config(group):
        return []
    message = torch.empty(1)
    return [r for r in range(group.size()) if r != group.rank() and _is_closed(group, r, message)]


def _is_closed(group: ProcessGroup, rank: int, message: torch.Tensor) -> bool:
    try:
        group.send([message], rank, _TAG)
    except RuntimeError:
        return True
    return False
