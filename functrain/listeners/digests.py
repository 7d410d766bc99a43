"""Write a digest of the state at every step, to compare two runs without storing their states."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import attrs
import orjson

from functrain.data.batch_parts import BatchParts
from functrain.errors.paths import absolute
from functrain.listeners.intervals import whole_steps
from functrain.listeners.sinks.files import LogFile, step_of
from functrain.listeners.sinks.line_file import LineFile
from functrain.listeners.sinks.row_buffer import RowBuffer
from functrain.listeners.sinks.sink import Sink
from functrain.metrics.log_file import Row
from functrain.training import events
from functrain.training.log_owner import Writer
from functrain.tree.hashing import merkle

FILE_NAME = "digests.jsonl"


class Digests(Sink):
    """A listener that writes a hash of the state after each step to ``digests.jsonl``.

    A row has the root of the state's Merkle tree, the hash of each part of the state (``params``,
    ``optimizer``, ``rng``, ...) and the hash of the batch. ``functrain diff`` uses them to find the
    step and the part in which two runs first differ. A resumed run truncates the file to its
    checkpoint, so each step occurs once. A run that continues from a checkpoint of another run
    starts with the rows of that run.

    Hashing takes place after the step and does not change training. Rows are written as those of
    other sinks are: if that fails, the listener warns once with :class:`SinkWarning`, keeps them
    and tries again.

    Args:
        directory: the run directory.
        every: the interval between rows, in steps.

    Raises:
        ConfigurationError: ``every`` is not given in steps.
        LogError: at the beginning of the run, if the file is of another run or something else.

    Example:
        >>> import functrain as ft, tempfile, torch
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> digests = Digests(tempfile.mkdtemp())
        >>> _ = ft.fit(program, [torch.ones(4, 2)], until="3 steps", listeners=[digests])
        >>> [row["step"] for row in read(digests.path)]
        [1, 2, 3]
    """

    every_rank = True  # a rank has rows of a placed state, and all ranks hash the whole

    def __init__(self, directory: str | Path, *, every: str = "1 step") -> None:
        self._steps = whole_steps(every, type(self).__name__)
        self.path = absolute(directory) / FILE_NAME
        self._batch: str | None = None
        self._writes = True
        super().__init__(DigestLines(LineFile(self.path)), f"Digests({str(directory)!r})", every)

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Keep the rows up to the state's step, and cut off those of later steps."""
        self._writes = event.rank == 0
        if self._writes:
            self.after = min(self.after, event.state.counters.step)
            super().on_train_begin(event)

    def on_batch_begin(self, event: events.BatchBegin) -> None:
        """Hash the batch if this step gets a row."""
        # Of a batch that ranks share, each has parts only.
        if (event.state.counters.step + 1) % self._steps == 0 and self._writes:
            is_shared = isinstance(event.batch, BatchParts)
            self._batch = None if is_shared else merkle(event.batch).digest.hex()

    def on_batch_end(self, event: events.BatchEnd) -> None:
        """Hash the state after the step."""
        step = event.state.counters.step
        if step % self._steps:
            return
        found = merkle(event.state)
        if self._writes:
            parts = {key: part.digest.hex() for key, part in (found.children or {}).items()}
            root = found.digest.hex()
            row = {"step": step, "root": root, "batch": self._batch, "parts": parts}
            self.rows.complete.append(row)
            self.write_if_due()

    def on_epoch_end(self, event: events.EpochEnd) -> None:
        """Add nothing."""

    def on_eval_end(self, event: events.EvalEnd) -> None:
        """Add nothing."""

    def close(self) -> None:
        """Write the rest and close."""
        if self._writes:
            super().close()

    def state_dict(self) -> dict[str, Any]:
        """Return the rows that are not written yet, after making the others durable."""
        return super().state_dict() if self._writes else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the rows that are not written yet."""
        if "digests" in state:  # of an earlier version, which wrote all other rows
            rows = [orjson.loads(line) for line in state["digests"]]
            after = rows[0]["step"] - 1 if rows else sys.maxsize
            held = RowBuffer(complete=rows).state_dict()
            state = {"sink": "DigestLines", "after": after, "run": state["run"], "rows": held}
        super().load_state_dict(state)


@attrs.define(eq=False)
class DigestLines(LogFile):
    """The file of digests; that of a fork begins with the rows of the run that it continues."""

    takes_lists: ClassVar[bool] = True

    def open(self, after: int, run: str | None) -> str:
        """Truncate the file after a step, or copy the rows of the parent first."""
        parent = self.config.get("fit", {}).get("parent")
        rows = None if parent is None else Path(parent).parent / FILE_NAME
        if rows is not None and rows.exists() and not self.file.path.exists():
            Writer.of(self.config, run).take(self.file.path, 0)
            self.file.path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(rows, self.file.path)
        return super().open(after, run)

    def write(self, rows: list[Row]) -> None:
        """Append rows."""
        lines = [orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows]
        self.file.append(b"".join(lines))


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a digests file, without a last line that a crash cut short.

    ``path`` may be a run directory; if the file does not exist there are no rows.
    """
    file = path / FILE_NAME if path.is_dir() else path
    for line in LineFile(file).read().splitlines():
        step_of(line, file)
        yield orjson.loads(line)
