"""Log what belongs to the process: its peak memory, and the speed of training."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import attrs
import torch

from functrain.core.batch_splitting import MicroBatches
from functrain.errors.calls import explained
from functrain.listeners.intervals import Interval
from functrain.training import events


def peak_memory(device: torch.device) -> dict[str, int]:
    """Return the peak memory so far, in bytes.

    ``host`` is the resident set of the process; ``device``, torch's tensors on an accelerator for
    which torch counts them.

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


@explained
@attrs.define(eq=False)
class ThroughputMonitor:
    """A listener that adds ``samples_per_second`` and ``tokens_per_second`` to the log.

    The speed is that of all steps since the last time, evaluations and checkpoints in between
    included. It belongs to the process, so it differs between a resumed run and an uninterrupted
    one. List this listener before the sinks.

    Args:
        every: the interval, a duration.
        tokens: returns the number of tokens of a batch of the data, such as ``lambda batch:
            batch.numel()``; by default only samples are counted.
        clock: returns seconds.

    Example:
        >>> import functrain as ft, torch
        >>> program = ft.program(torch.nn.Linear(2, 1), lambda m, b: m(b).mean(), ft.optim.SGD(0.1))
        >>> monitor = ThroughputMonitor("2 steps", tokens=lambda batch: batch.numel())
        >>> run = ft.fit(program, [torch.ones(4, 2)], until="4 steps", listeners=[monitor])
        >>> run.history.column("tokens_per_second")[0]
        [2, 4]
    """

    every: Interval = attrs.field(default=Interval("100 steps"), converter=Interval)
    tokens: Callable[[Any], int] | None = None
    clock: Callable[[], float] = time.monotonic
    _start: tuple[float, int] = attrs.field(init=False, default=(0.0, 0))
    _tokens: int = attrs.field(init=False, default=0)

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Start counting."""
        counters = event.state.counters
        self.every.begin(counters, event.batches)
        self._start, self._tokens = (self.clock(), counters.samples), 0

    def on_batch_begin(self, event: events.BatchBegin) -> None:
        """Count the tokens of the batch."""
        if self.tokens is not None:
            # With accumulate=k a step takes k batches of the data.
            parts = event.batch.batches if isinstance(event.batch, MicroBatches) else [event.batch]
            self._tokens += sum(int(self.tokens(part)) for part in parts)

    def on_batch_end(self, event: events.BatchEnd) -> dict[str, float] | None:
        """Measure if it is due."""
        counters = event.state.counters
        if not self.every.due(counters):
            return None
        (begun, samples), now = self._start, self.clock()
        seconds = max(now - begun, 1e-9)
        found = {"samples_per_second": (counters.samples - samples) / seconds}
        if self.tokens is not None:
            found["tokens_per_second"] = self._tokens / seconds
        self._start, self._tokens = (now, counters.samples), 0
        return found
