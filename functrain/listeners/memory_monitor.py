"""Log the peak memory of the process and of its device."""

from __future__ import annotations

import resource
import sys

import attrs
import torch

from functrain.errors.calls import explained
from functrain.listeners.intervals import Interval
from functrain.training import events


def peak_memory(device: torch.device) -> dict[str, int]:
    """Return the peak memory so far, in bytes.

    Args:
        device: the device of the state.

    Returns:
        ``host``: the resident set of the process; ``device``: torch's tensors on an accelerator
        for which torch counts them.

    Example:
        >>> peak_memory(torch.device("cpu"))["host"] > 1_000_000
        True
    """
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"host": used if sys.platform == "darwin" else used * 1024}
    if device.type in ("cuda", "xpu"):
        backend = getattr(torch, device.type)
        found["device"] = backend.max_memory_allocated(device)
    return found


@explained
@attrs.define(eq=False)
class MemoryMonitor:
    """A listener that adds peak memory to the log: ``memory/host`` and ``memory/device``, in bytes.

    The numbers belong to the process, so they differ between a resumed run and an uninterrupted
    one. List this listener before the sinks.

    Args:
        every: the interval, a duration.

    Example:
        >>> import functrain as ft
        >>> program = ft.program(torch.nn.Linear(2, 1), lambda m, b: m(b).mean(), ft.optim.SGD(0.1))
        >>> monitor = MemoryMonitor("2 steps")
        >>> run = ft.fit(program, [torch.ones(4, 2)], until="4 steps", listeners=[monitor])
        >>> run.history.column("memory/host")[0]
        [2, 4]
    """

    every: Interval = attrs.field(default=Interval("100 steps"), converter=Interval)

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Start counting."""
        self.every.begin(event.state.counters, event.batches)

    def on_batch_end(self, event: events.BatchEnd) -> dict[str, float] | None:
        """Measure if it is due."""
        if not self.every.due(event.state.counters):
            return None
        found = peak_memory(event.state.device)
        return {f"memory/{place}": float(used) for place, used in found.items()}
