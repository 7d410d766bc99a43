"""torch.profiler over some steps of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import torch
from torch.profiler import profile, schedule

from functrain.training import events


@attrs.define(eq=False, kw_only=True)
class Profiler:
    """A listener that records what some steps spend their time on. Training is not changed by it.

    It passes over ``wait`` steps, runs the profiler over ``warmup`` more without keeping them,
    and records ``active``; then it lets go, or begins again where ``repeat`` says so. Each
    recording leaves ``step-N.trace.json`` (chrome://tracing, Perfetto) and ``step-N.txt``, a table
    of the most expensive operators, N being the last step in it. Loading of data counts.

    Args:
        directory: for the files; it is made.
        wait: steps, from the beginning of the run or where it is resumed.
        warmup: steps.
        active: steps.
        repeat: recordings; 0 goes on to the end.
        rows: of the table.
        options: what else ``torch.profiler.profile`` takes: ``record_shapes``,
            ``profile_memory``, ``with_stack``, ...

    Example:
        >>> import functrain as ft, tempfile
        >>> program = ft.program(torch.nn.Linear(2, 1), lambda m, b: m(b).mean(), ft.optim.SGD(0.1))
        >>> profiler = Profiler(tempfile.mkdtemp(), wait=1, warmup=1, active=2)
        >>> run = ft.fit(program, [torch.ones(4, 2)], until="6 steps", listeners=[profiler])
        >>> sorted(file.name for file in profiler.directory.iterdir())
        ['step-00000004.trace.json', 'step-00000004.txt']
    """

    directory: Path = attrs.field(converter=Path, kw_only=False)
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
        """Start it."""
        self.close()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._step, self._left = event.state.counters.step, self.repeat
        turns = schedule(wait=self.wait, warmup=self.warmup, active=self.active, repeat=self.repeat)
        self._running = profile(schedule=turns, on_trace_ready=self._write, **self.options)
        self._running.start()

    def on_batch_end(self, event: events.BatchEnd) -> None:
        """Go on to the next step, and let go after the last recording."""
        if self._running is None:
            return
        self._step = event.state.counters.step
        self._running.step()
        if self.repeat and not self._left:
            self.close()

    def on_train_end(self, event: events.TrainEnd) -> None:
        """Write what is recorded, if the run ends within."""
        self.close()

    def close(self) -> None:
        """Stop, also where an exception ended the run."""
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
