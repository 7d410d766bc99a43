"""Texts that a model writes as it learns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import orjson

from functrain.core.program import Program
from functrain.core.state import TrainState
from functrain.listeners.every import undisturbed
from functrain.listeners.intervals import Interval
from functrain.listeners.sinks.jsonl import step_of
from functrain.listeners.sinks.line_file import LineFile
from functrain.training import events
from functrain.training.durations import Duration


@attrs.define(eq=False)
class SampleText:
    """A listener that has the model write a text now and then, and prints it or puts it in a file.

    Training is bit for bit the same with it; the text is a function of state and seed, so a
    resumed run writes the same ones.

    Args:
        program: what is trained.
        function: (program, state) -> text, such as one around ``functrain.generation``.
        every: how often, a duration; by default at each evaluation.
        path: a file of JSON lines ``{"step": ..., "text": ...}`` in the place of printing. A run
            that begins at step 0 empties it, a resumed one goes on in it.

    Raises:
        LogError: at the beginning of the run, if something else stands in the file.

    Example:
        >>> import functrain as ft, torch
        >>> program = ft.program(torch.nn.Linear(2, 1), lambda m, b: m(b).mean(), ft.optim.SGD(0.1))
        >>> samples = SampleText(program, lambda program, state: "to be", every="2 steps")
        >>> run = ft.fit(program, [torch.ones(4, 2)], until="4 steps", listeners=[samples])
        step 2: to be
        step 4: to be
    """

    program: Program
    function: Callable[[Program, TrainState], str]
    every: Duration | str | None = None
    path: str | Path | None = None
    _interval: Interval | None = attrs.field(init=False, default=None)
    _file: LineFile | None = attrs.field(init=False, default=None)
    _last: int | None = attrs.field(init=False, default=None)

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Open the file and leave in it what is of steps up to here."""
        counters = event.state.counters
        if self.every is not None:
            self._interval = Interval(self.every)
            self._interval.begin(counters, event.batches)
        # An evaluation that was cut is made again after its step, and so is its text.
        after = counters.step if event.resumed is None or self._last is None else self._last
        self._last = after
        if self.path is not None:
            self._file = LineFile(self.path)
            lines = self._file.read().splitlines(keepends=True)
            kept = [line for line in lines if step_of(line, self._file.path) <= after]
            self._file.open(sum(map(len, kept)))

    def on_batch_end(self, event: events.BatchEnd) -> None:
        """Write a text after a step that is due."""
        if self._interval is not None and self._interval.due(event.state.counters):
            self._write(event.state)

    def on_eval_end(self, event: events.EvalEnd) -> None:
        """Write a text after an evaluation, once for all that there are of a step."""
        if self._interval is None and event.state.counters.step != self._last:
            self._write(event.state)

    def on_train_end(self, event: events.TrainEnd) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file, also where an exception ended the run."""
        if self._file is not None:
            self._file.close()

    def state_dict(self) -> dict[str, Any]:
        """The step of the last text; it is durable now."""
        if self._file is not None:
            self._file.sync()
        return {"last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._last = state["last"]

    def _write(self, state: TrainState) -> None:
        step = state.counters.step
        text = str(undisturbed(lambda state: self.function(self.program, state), state))
        self._last = step
        if self._file is None:
            print(f"step {step}: {text}", flush=True)
        else:
            line = {"step": step, "text": text}
            self._file.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
