"""The store through which the processes of a launch meet."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from uuid import uuid4

from torch.distributed import DistStoreError
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from functrain.distributed.launch import Launch

_POLL = 0.01


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
