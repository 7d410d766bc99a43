"""Sample text from a model during training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import orjson
from attrs.converters import optional

from functrain.errors.calls import explained
from functrain.errors.output import print_line
from functrain.errors.paths import absolute
from functrain.listeners.every import Sampler
from functrain.listeners.sinks.files import step_of
from functrain.listeners.sinks.line_file import LineFile
from functrain.training import events
from functrain.training.log_owner import Writer


@explained
@attrs.define(eq=False)
class SampleText(Sampler):
    """A listener that samples text from the model, and prints it or writes it to a file.

    It does not change training. The text is a function of state and seed, so a resumed run
    samples the same texts.

    Args:
        program: the program that is trained.
        function: (program, state) -> text, for example a function that uses
            ``functrain.generation``.
        every: the interval, a duration; by default each evaluation.
        path: write JSON lines ``{"step": ..., "text": ...}`` to this file instead of printing. A
            resumed run appends to it, and the same run made again begins it from scratch.

    Raises:
        LogError: at the beginning of the run, if the file is of another run or something else.

    Example:
        >>> import functrain as ft, torch
        >>> program = ft.program(torch.nn.Linear(2, 1), lambda m, b: m(b).mean(), ft.optim.SGD(0.1))
        >>> samples = SampleText(program, lambda program, state: "to be", every="2 steps")
        >>> run = ft.fit(program, [torch.ones(4, 2)], until="4 steps", listeners=[samples])
        step 2: to be
        step 4: to be
    """

    path: Path | None = attrs.field(default=None, converter=optional(absolute))
    _file: LineFile | None = attrs.field(init=False, default=None)
    _run: str | None = attrs.field(init=False, default=None)

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Open the file, and cut off the texts of later steps."""
        super().on_train_begin(event)
        # A resumed run repeats an interrupted evaluation, and then also samples its text again.
        after = self._last = event.state.counters.step if self._last is None else self._last
        self._run = self._run if event.resumed is not None else None
        if self.path is not None and self._writes and event.ended is None:
            file = self._file = LineFile(self.path)
            writer = Writer.of(event.config, self._run)
            file.open_after(lambda line: step_of(line, file.path) <= after, writer)
            self._run = writer.run

    def on_train_end(self, event: events.TrainEnd) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file, also after an exception ended the run."""
        if self._file is not None:
            self._file.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the step of the last text, after syncing the file."""
        if self._file is not None:
            self._file.sync()
        return {**super().state_dict(), "run": self._run}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the step of the last text."""
        super().load_state_dict(state)
        self._run = state.get("run")

    def receive(self, step: int, found: Any) -> None:
        """Print a text, or append it to the file."""
        if not self._writes:
            return
        if self._file is None:
            print_line(f"step {step}: {found}")
        else:
            line = {"step": step, "text": str(found)}
            self._file.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
