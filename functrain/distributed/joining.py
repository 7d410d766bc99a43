"""Joining the process group that a launcher describes, and leaving it."""

from __future__ import annotations

import atexit
import weakref
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from functrain.distributed import failure
from functrain.distributed.launch import Launch
from functrain.distributed.reports import meet, wait_for_others
from functrain.errors import ConfigurationError, ProcessGroupError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# Long enough for one rank's checkpoint or evaluation; torch's 30 minutes hide a hanging rank.
TIMEOUT = timedelta(seconds=60)
# How long rank 0, whose process serves the others' store, waits for them at its end.
_LAST = 5.0


def device_of(launch: Launch, device: str | torch.device | None) -> torch.device:
    """Return the device that a rank trains on."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        device = accelerator or torch.device("cpu")
    device = torch.device(device)
    if device.type == "cpu":
        return device
    index = launch.local_rank if device.index is None else device.index
    count = torch.accelerator.device_count()
    if index >= count:
        raise ConfigurationError(
            f"expected a {device.type} device for each rank of this machine, got {count} for local "
            f"rank {launch.local_rank}. Start at most {count} processes here, or use device='cpu'"
        )
    return torch.device(device.type, index)


def join(launch: Launch, timeout: float | timedelta | None, device: torch.device) -> None:
    """Start the default process group of torch, and leave it at exit."""
    if isinstance(timeout, int | float):
        timeout = timedelta(seconds=timeout)
    if timeout is not None and timeout <= timedelta(0):
        raise ConfigurationError(f"expected a timeout of more than 0 seconds, got {timeout}")
    backend = "gloo"
    if device.type != "cpu":
        torch.accelerator.set_device_index(device)
        backend = f"cpu:gloo,{device.type}:{dist.get_default_backend_for_device(device)}"
    elif timeout is None:
        timeout = TIMEOUT
    try:
        store = meet(launch, timeout or TIMEOUT)
        dist.init_process_group(
            backend,
            store=store,
            rank=launch.rank,
            world_size=launch.size,
            timeout=timeout,
            device_id=None if device.type == "cpu" else device,
        )
    except RuntimeError as error:
        raise ProcessGroupError(
            f"rank {launch.rank} of {launch.size} could not join the others at "
            f"{launch.address}:{launch.port}: {str(error).splitlines()[0]}. Check that all "
            f"{launch.size} processes were started, that this machine reaches MASTER_ADDR, and "
            "that no other process uses MASTER_PORT there"
        ) from error
    group = dist.group.WORLD
    assert group is not None, "just started"
    atexit.register(leave, weakref.ref(group))


def leave(joined: weakref.ref[ProcessGroup] | None = None) -> None:
    """Leave the process group, as happens at exit by itself.

    Rank 0 waits a few seconds for the others, because its process may serve their store.

    Args:
        joined: the group to leave; nothing is left if it is not the default one any more.
    """
    world = dist.group.WORLD if dist.is_available() and dist.is_initialized() else None
    if world is None or (joined is not None and joined() is not world):
        return
    if failure.of(world) is None:
        wait_for_others(world, "left", _LAST)
    dist.destroy_process_group()
