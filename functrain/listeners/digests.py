"""Write a digest of the state at every step, to compare two runs without storing their states."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import orjson

from functrain import tree
from functrain.data.batch_parts import BatchParts
from functrain.errors import LogError, SinkWarning
from functrain.errors.base import warn
from functrain.errors.calls import explained
from functrain.errors.paths import absolute
from functrain.listeners.intervals import whole_steps
from functrain.listeners.sinks.line_file import LineFile
from functrain.training import events
from functrain.training.log_owner import Writer
from functrain.tree.hashing import Merkle, merkle

FILE_NAME = "digests.jsonl"


@explained
@attrs.define(eq=False)
class Digests:
    """A listener that writes a hash of the state after each step to ``digests.jsonl``.

    A row has the root of the state's Merkle tree, the hash of each part of the state (``params``,
    ``optimizer``, ``rng``, ...) and the hash of the batch. At the interval ``leaves`` it also has
    the hashes of all leaves. ``functrain diff`` uses them to find the step and the part in which
    two runs first differ. A resumed run truncates the file to its checkpoint, so each step occurs
    once. A run that continues from a checkpoint of another run starts with the rows of that run.

    Hashing takes place after the step and does not change training. If rows cannot be written,
    the listener warns once with :class:`SinkWarning`, keeps them and tries again.

    Args:
        directory: the run directory.
        every: the interval between rows, in steps.
        leaves: the interval between rows with the hashes of all leaves, in steps.

    Raises:
        ConfigurationError: ``every`` or ``leaves`` is not given in steps.
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

    directory: Path = attrs.field(converter=absolute)
    every: str = attrs.field(default="1 step", kw_only=True)
    leaves: str = attrs.field(default="100 steps", kw_only=True)
    _every: int = attrs.field(init=False)
    _leaves: int = attrs.field(init=False)
    _file: LineFile = attrs.field(init=False)
    _batch: Merkle | None = attrs.field(init=False, default=None)
    _pending: list[bytes] = attrs.field(init=False, factory=list)
    _failing: bool = attrs.field(init=False, default=False)
    _run: str | None = attrs.field(init=False, default=None)
    _resumed: bool = attrs.field(init=False, default=False)
    _writes: bool = attrs.field(init=False, default=True)

    def __attrs_post_init__(self) -> None:
        self._every = whole_steps(self.every, type(self).__name__)
        self._leaves = whole_steps(self.leaves, type(self).__name__)
        self._file = LineFile(self.path)

    @property
    def path(self) -> Path:
        """The file."""
        return self.directory / FILE_NAME

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Keep the rows up to the state's step, and cut off those of later steps."""
        self._writes = event.rank == 0
        if not self._writes:
            return
        if not self._resumed:
            self._pending, self._run = [], None
        self._writes = event.ended is None or bool(self._pending)
        if not self._writes:
            return
        writer = Writer.of(event.config, self._run)
        self._run = writer.run
        if event.resumed is not None and not self.path.exists():
            writer.take(self.path, 0)
            _copy_rows(event.resumed.parent / FILE_NAME, self.path)
        # A write that was cut short may have left some of the pending rows in the file.
        pending = [_decoded(line, self.path)["step"] - 1 for line in self._pending[:1]]
        last = min([event.state.counters.step, *pending])
        self._batch, self._resumed, self._failing = None, False, False
        self._file.open_after(lambda line: _decoded(line, self.path)["step"] <= last, writer)

    def on_batch_begin(self, event: events.BatchBegin) -> None:
        """Hash the batch if this step gets a row."""
        # Of a batch that ranks share, each has parts only.
        if (event.state.counters.step + 1) % self._every == 0 and self._writes:
            is_shared = isinstance(event.batch, BatchParts)
            self._batch = None if is_shared else merkle(event.batch)

    def on_batch_end(self, event: events.BatchEnd) -> None:
        """Hash the state after the step, and write the row."""
        step = event.state.counters.step
        if step % self._every:
            return
        found = merkle(event.state)
        if not self._writes:
            return
        row: dict[str, Any] = {"step": step, "root": found.digest.hex()}
        row["batch"] = None if self._batch is None else self._batch.digest.hex()
        row["parts"] = {key: part.digest.hex() for key, part in (found.children or {}).items()}
        if step % self._leaves == 0:
            row["leaves"] = {
                tree.path_string(path): digest.hex() for path, digest in found.leaves()
            }
        self._pending.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        self._write()

    def on_train_end(self, event: events.TrainEnd) -> None:
        """Sync and close the file."""
        if self._writes:
            self._write(durable=True)
            self._file.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the rows that could not be written yet, and sync all others."""
        if self._writes:
            self._write(durable=True)
        return {"digests": [line.decode() for line in self._pending], "run": self._run}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the rows that could not be written."""
        self._pending = [line.encode() for line in state.get("digests", [])]
        self._run, self._resumed = state.get("run"), True

    def _write(self, durable: bool = False) -> None:
        try:
            self._file.append(b"".join(self._pending))
            self._pending = []
            if durable:
                self._file.sync()
            self._failing = False
        except OSError as error:
            if not self._failing:
                warn(
                    f"could not write to {self.path}: {error}. Training continues, and functrain "
                    "tries again",
                    SinkWarning,
                )
            self._failing = True


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a digests file, without a last line that a crash cut short.

    ``path`` may be a run directory; if the file does not exist there are no rows.
    """
    file = path / FILE_NAME if path.is_dir() else path
    for line in LineFile(file).read().splitlines():
        yield _decoded(line, file)


def _decoded(line: bytes, path: Path) -> dict[str, Any]:
    try:
        row: dict[str, Any] = orjson.loads(line)
        if isinstance(row["step"], int) and isinstance(row["root"], str):
            return row
    except (orjson.JSONDecodeError, KeyError, TypeError):
        pass
    raise LogError(
        f"{path} is not a digests file (it has the line {line[:60]!r}), so it is not overwritten. "
        "Choose another directory, or move the file away."
    )


def _copy_rows(source: Path, target: Path) -> None:
    """Copy the rows, if any, of the run that this one continues."""
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
