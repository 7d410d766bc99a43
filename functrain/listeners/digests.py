"""Digests of the state at every step, by which two runs are compared without their states."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import orjson

from functrain import tree
from functrain.errors import LogError, SinkWarning
from functrain.errors.warning import warn
from functrain.listeners.intervals import whole_steps
from functrain.listeners.sinks.line_file import LineFile
from functrain.training import events
from functrain.tree.merkle import Merkle, merkle

FILE_NAME = "digests.jsonl"


@attrs.define(eq=False)
class Digests:
    """A listener that writes a hash of the state after each step to ``digests.jsonl``.

    A row has the root of the state's Merkle tree, the hash of each part of the state (``params``,
    ``optimizer``, ``rng``, ...) and that of the batch; every so often also those of all leaves.
    ``functrain diff`` reads in them at which step two runs part, and in which part. A resumed run
    cuts the file back to its checkpoint, so that each step stands in it once; one that goes on
    from a checkpoint of another run begins with the rows of that one.

    The state is hashed when the step has been made; training is the same with it and without.
    Rows that cannot be written are told of in one :class:`SinkWarning`, kept, and tried again.

    Args:
        directory: the run directory.
        every: of which steps, in steps.
        leaves: at which steps the hashes of all leaves are written too, in steps.

    Raises:
        ConfigurationError: ``every`` or ``leaves`` is not given in steps.
        LogError: at the beginning of the run, if something else stands in the file.

    Example:
        >>> import functrain as ft, tempfile, torch
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> digests = Digests(tempfile.mkdtemp())
        >>> _ = ft.fit(program, [torch.ones(4, 2)], until="3 steps", listeners=[digests])
        >>> [row["step"] for row in read(digests.path)]
        [1, 2, 3]
    """

    directory: Path = attrs.field(converter=Path)
    every: str = attrs.field(default="1 step", kw_only=True)
    leaves: str = attrs.field(default="100 steps", kw_only=True)
    _every: int = attrs.field(init=False)
    _leaves: int = attrs.field(init=False)
    _file: LineFile = attrs.field(init=False)
    _batch: Merkle | None = attrs.field(init=False, default=None)
    _waiting: list[bytes] = attrs.field(init=False, factory=list)
    _failing: bool = attrs.field(init=False, default=False)
    _resumed: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._every = whole_steps(self.every, type(self).__name__)
        self._leaves = whole_steps(self.leaves, type(self).__name__)
        self._file = LineFile(self.path)

    @property
    def path(self) -> Path:
        """The file."""
        return self.directory / FILE_NAME

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Keep the rows that the state has behind it; those of later steps go."""
        if event.resumed is not None and not self.path.exists():
            _bring(event.resumed.parent / FILE_NAME, self.path)
        if not self._resumed:
            self._waiting = []
        # Some of the rows that wait may stand there, from a write that was cut short.
        waiting = [_decoded(line, self.path)["step"] - 1 for line in self._waiting[:1]]
        last = min([event.state.counters.step, *waiting])
        self._batch, self._resumed, self._failing, kept = None, False, False, 0
        for line in self._file.read().splitlines(keepends=True):
            if _decoded(line, self.path)["step"] > last:
                break
            kept += len(line)
        self._file.open(kept)

    def on_batch_begin(self, event: events.BatchBegin) -> None:
        """Hash the batch of a step that is due."""
        if (event.state.counters.step + 1) % self._every == 0:
            self._batch = merkle(event.batch)

    def on_batch_end(self, event: events.BatchEnd) -> None:
        """Hash the state after it, and write the row."""
        step = event.state.counters.step
        if step % self._every:
            return
        found = merkle(event.state)
        row: dict[str, Any] = {"step": step, "root": found.digest.hex()}
        row["batch"] = None if self._batch is None else self._batch.digest.hex()
        row["parts"] = {key: part.digest.hex() for key, part in (found.children or {}).items()}
        if step % self._leaves == 0:
            row["leaves"] = {
                tree.path_string(path): digest.hex() for path, digest in found.leaves()
            }
        self._waiting.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        self._write()

    def on_train_end(self, event: events.TrainEnd) -> None:
        """Make durable what was written, and let go of the file."""
        self._write(durable=True)
        self._file.close()

    def state_dict(self) -> dict[str, Any]:
        """The rows that could not be written yet; all others are durable now."""
        self._write(durable=True)
        return {"digests": [line.decode() for line in self._waiting]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the rows that could not be written; which of the file stay, the step tells."""
        self._waiting = [line.encode() for line in state.get("digests", [])]
        self._resumed = True

    def _write(self, durable: bool = False) -> None:
        try:
            self._file.append(b"".join(self._waiting))
            self._waiting = []
            if durable:
                self._file.sync()
            self._failing = False
        except OSError as error:
            if not self._failing:
                warn(
                    f"{self.path} could not be written to: {error}. Training goes on, and it is "
                    "tried again",
                    SinkWarning,
                )
            self._failing = True


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of digests; a line that a crash cut short is left out.

    Args:
        path: the file, or a run directory; without one there are no rows.

    Raises:
        LogError: it is no file of digests.
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
        f"{path} holds no digests of a run (it has the line {line[:60]!r}), and is not written "
        "over. Choose another directory, or move it away."
    )


def _bring(source: Path, target: Path) -> None:
    """Copy the rows of the run that another one goes on from, where it has any."""
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
