"""Run torch.profiler over some steps of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import torch
from torch.profiler import profile, schedule

from functrain.errors.calls import explained
from functrain.errors.paths import absolute
from functrain.training import events


@explained
@attrs.define(eq=False, kw_only=True)
class Profiler:
    """A listener that profiles some steps. It does not change training.

    It skips ``wait`` steps, runs the profiler for ``warmup`` steps without keeping the results,
    and records ``active`` steps. Then it stops, or starts over as often as ``repeat`` says. Each
    recording writes ``step-N.trace.json`` (for chrome://tracing or Perfetto) and ``step-N.txt``, a
    table of the most expensive operators, where N is the last recorded step. The time includes
    data loading.

    Args:
        directory: the directory for the files; created if necessary.
        wait: number of steps to skip after the start of the run or its resumption.
        warmup: number of steps to profile without keeping the results.
        active: number of steps to record.
        repeat: number of recordings; 0 continues to the end of the run.
        rows: number of rows in the table.
        options: other arguments of ``torch.profiler.profile``: ``record_shapes``,
            ``profile_memory``, ``with_stack``, ...

    Example:
        >>> import functrain as ft, tempfile
        >>> program = ft.program(torch.nn.Linear(2, 1), lambda m, b: m(b).mean(), ft.optim.SGD(0.1))
        >>> profiler = Profiler(tempfile.mkdtemp(), wait=1, warmup=1, active=2)
        >>> run = ft.fit(program, [torch.ones(4, 2)], until="6 steps", listeners=[profiler])
        >>> sorted(file.name for file in profiler.directory.iterdir())
        ['step-00000004.trace.json', 'step-00000004.txt']
    """

    directory: Path = attrs.field(converter=absolute, kw_only=False)
    wait: int = 1
    warmup: int = 1
    active: int = 3
    repeat: int = 1
    rows: int = 40
    options: dict[str, Any] = attrs.field(factory=dict)
    _running: Any = attrs.field(init=False, default=None)
    _step: int = attrs.field(init=False, default=0)
    _left: int = attrs.field(init=False, default=0)

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Start the profiler."""
        self.close()
        if event.ended is not None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        self._step, self._left = event.state.counters.step, self.repeat
        turns = schedule(wait=self.wait, warmup=self.warmup, active=self.active, repeat=self.repeat)
        self._running = profile(schedule=turns, on_trace_ready=self._write, **self.options)
        self._running.start()

    def on_batch_end(self, event: events.BatchEnd) -> None:
        """Advance to the next step, and stop after the last recording."""
        if self._running is None:
            return
        self._step = event.state.counters.step
        self._running.step()
        if self.repeat and not self._left:
            self.close()

    def on_train_end(self, event: events.TrainEnd) -> None:
        """Stop, and write the recording that the run ended in."""
        self.close()

    def close(self) -> None:
        """Stop, also after an exception ended the run."""
        if self._running is not None:
            running, self._running = self._running, None
            running.stop()

    def _write(self, recorded: profile) -> None:
        self._left -= 1
        name = f"step-{self._step:08d}"
        recorded.export_chrome_trace(str(self.directory / f"{name}.trace.json"))
        averages = recorded.key_averages()
        accelerated = torch.accelerator.is_available()
        order = "self_device_time_total" if accelerated else "self_cpu_time_total"
        table = averages.table(sort_by=order, row_limit=self.rows)
        (self.directory / f"{name}.txt").write_text(table)
