"""Print plain lines about a run, for terminals, files and batch systems."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar, TextIO

import attrs

from functrain import metrics
from functrain.errors.calls import explained
from functrain.errors.output import encodable
from functrain.errors.validators import one_of
from functrain.listeners.intervals import Interval
from functrain.listeners.process_monitors import peak_memory
from functrain.metrics.by_member import text
from functrain.training import events
from functrain.training.progress.output import evaluation_name, nothing_to_train
from functrain.training.progress.throughput import Throughput, clock_text

STYLES = ("minimal", "standard", "verbose")


@explained
@attrs.define(eq=False)
class Console:
    """A listener that prints lines.

    Metrics are fetched from the device only when a line is printed.

    Args:
        style: ``"minimal"`` prints a line for each evaluation and one at the end; ``"standard"``
            also prints one at the start, and loss, lr, samples per second and the time left at
            the interval ``every``; ``"verbose"`` adds epochs, checkpoints, the gradient norm and
            peak memory.
        every: the interval between lines about steps, a duration.
        file: the output file, by default the standard output.

    Raises:
        ConfigurationError: ``style`` is unknown.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: model(batch).square().mean() * 0
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> data, lines = [torch.ones(4, 2)] * 2, [Console("minimal")]
        >>> run = ft.fit(program, data, until="2 epochs", eval_data=data, listeners=lines)
        step 2  eval: loss 0
        step 4  eval: loss 0
        ended at step 4: max_epochs (reached 2 epochs)
    """

    shows_progress: ClassVar[bool] = True

    style: str = attrs.field(default="standard", validator=one_of(*STYLES))
    every: Interval = attrs.field(default=Interval("100 steps"), converter=Interval)
    file: TextIO | None = None
    _throughput: Throughput | None = attrs.field(init=False, default=None)

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Print where the run begins."""
        counters = event.state.counters
        self.every.begin(counters, event.batches)
        self._throughput = Throughput(event.steps, counters)
        if self.style != "minimal":
            if event.ended is not None:
                self._print(nothing_to_train(event))
                return
            to = "" if event.steps is None else f" of {event.steps}"
            begin = "training" if event.resumed is None else f"continuing {event.resumed}"
            self._print(f"{begin} from step {counters.step}{to}")

    def on_batch_end(self, event: events.BatchEnd) -> None:
        """Print a line about the step if one is due."""
        if self.style != "minimal" and self.every.due(event.state.counters):
            self._print(self._step_line(event))

    def on_epoch_end(self, event: events.EpochEnd) -> None:
        """Print the mean metrics of an epoch."""
        if self.style == "verbose":
            cut = "" if event.complete else " (cut short)"
            self._print(f"epoch {event.epoch + 1} ended{cut}  {_values(event.metrics)}")

    def on_eval_end(self, event: events.EvalEnd) -> None:
        """Print an evaluation."""
        self._print_at(event, f"{evaluation_name(event)}: {_values(event.metrics)}")

    def on_checkpoint_saved(self, event: events.CheckpointSaved) -> None:
        """Print the path of a checkpoint."""
        if self.style == "verbose":
            self._print_at(event, f"saved {event.path}")

    def on_member_stopped(self, event: events.MemberStopped) -> None:
        """Print why a member of a population stops early."""
        if self.style == "verbose":
            self._print_at(event, f"stopping member {event.member}: {event.detail}")

    def on_member_replaced(self, event: events.MemberReplaced) -> None:
        """Print from which member another one of a population goes on."""
        if self.style == "verbose":
            values = ", ".join(f"{path}={value:.4g}" for path, value in event.values.items())
            self._print_at(event, f"member {event.member} goes on from {event.by}: {values}")

    def on_early_stopped(self, event: events.EarlyStopped) -> None:
        """Print why the run stops early."""
        if self.style == "verbose":
            self._print_at(event, f"stopping early: {event.detail}")

    def on_train_end(self, event: events.TrainEnd) -> None:
        """Print how the run ended."""
        step = event.state.counters.step
        self._print(f"ended at step {step}: {event.reason} ({event.detail})")

    def _step_line(self, event: events.BatchEnd) -> str:
        assert self._throughput is not None, "a run begins with on_train_begin"
        counters, throughput = event.state.counters, self._throughput
        row = metrics.fetch([dict(event.metrics)])[0]
        total = "" if throughput.steps is None else f"/{throughput.steps}"
        parts = [
            f"step {counters.step}{total}",
            f"epoch {counters.epoch + (counters.batch > 0)}",
            _values({name: row[name] for name in _shown(row, self.style)}),
            f"{throughput.samples_per_second(counters):.4g} samples/s",
        ]
        if (left := throughput.seconds_left(counters)) is not None:
            parts.append(f"{clock_text(left)} left")
        if self.style == "verbose":
            used = peak_memory(event.state.device)
            parts += [f"{place} {size / 2**20:.0f} MiB" for place, size in used.items()]
        return "  ".join(parts)

    def _print_at(self, event: events.Event, text: str) -> None:
        self._print(f"step {event.state.counters.step}  {text}")

    def _print(self, line: str) -> None:
        # Look sys.stdout up for each line: notebooks and test runners replace it.
        file = self.file or sys.stdout
        print(encodable(line, getattr(file, "encoding", None)), file=file, flush=True)


def _shown(row: Mapping[str, Any], style: str) -> list[str]:
    if style == "verbose":
        return list(row)
    return [
        name
        for name in row
        if name == "lr" or name.partition(".")[0] not in ("lr", "grad_norm", "update_ratio")
    ]


def _values(values: Mapping[str, Any]) -> str:
    return "  ".join(text(name, value) for name, value in values.items())
