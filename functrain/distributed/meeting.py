"""The store through which the processes of a launch meet."""

from __future__ import annotations

import os
from datetime import timedelta

from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from functrain.distributed.launch import Launch


def meet(launch: Launch, timeout: timedelta) -> Store:
    """Return the store of all ranks, which rank 0 serves, or under torchrun its agent.

    Args:
        launch: the place of this process.
        timeout: the longest wait for the others.
    """
    url = f"tcp://{launch.address}:{launch.port}"
    store, _, _ = next(rendezvous(url, launch.rank, launch.size, timeout=timeout))
    store.set_timeout(timeout)
    # An agent's store keeps the addresses of processes that a restart replaced.
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"functrain/{restart}", store)
