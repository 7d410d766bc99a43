"""``metrics.jsonl``: one line a step, written once.

A row is written once its step is settled, evaluation included, and never changed. A checkpoint
records how long the file was; resuming cuts it back to that length, so that after any crash every
step stands in it exactly once.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import orjson

from functrain import metrics
from functrain.checkpoint.run_directory import METRICS_LOG
from functrain.checkpoint.storage.files import sync_directory
from functrain.errors import LogError
from functrain.metrics import Sums

Row = dict[str, Any]
FILE_NAME = METRICS_LOG


def encode(row: Row) -> bytes:
    r"""A row as one line of JSON; what is not finite is written as a string (JSON has no NaN).

    Example:
        >>> encode({"step": 1, "loss": math.nan})
        b'{"step":1,"loss":"nan"}\n'
    """
    line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    if b":null" not in line:  # which is what orjson makes of NaN, and of None
        return line
    plain = {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return orjson.dumps(plain, option=orjson.OPT_APPEND_NEWLINE)


def decode(line: bytes) -> Row:
    """A row from its line."""
    words = ("nan", "inf", "-inf")
    row: Row = orjson.loads(line)
    return {name: float(v) if v in words else v for name, v in row.items()}


class Log:
    """An open ``metrics.jsonl``.

    Attributes:
        path: the file.
        size: its length in bytes.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME
        new = not self.path.exists()
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (closed by close)
        if new:  # else a power cut may keep a checkpoint and not the log that it has seen
            sync_directory(directory)
        self.size = os.fstat(self._file.fileno()).st_size

    def resume(self, size: int) -> list[Row]:
        """Cut the file back to what a checkpoint has seen, and read that.

        Args:
            size: length in bytes at the time of the checkpoint.

        Raises:
            LogError: the file is shorter, so rows were lost.
        """
        if self.size < size:
            raise LogError(
                f"{self.path} has {self.size} bytes, but had {size} when the checkpoint was "
                "written: rows were lost. Restore the file, or move the run directory away to "
                "start anew."
            )
        if self.size > size:
            self._file.truncate(size)
            self.size = size
        return read(self.path)

    def append(self, rows: list[Row]) -> None:
        """Write rows."""
        data = b"".join(encode(row) for row in rows)
        while data:
            written = self._file.write(data)
            if not written:
                raise OSError(errno.EIO, f"the system wrote nothing to {self.path}")
            self.size += written
            data = data[written:]

    def syncing(self) -> Callable[[], None]:
        """A call that makes durable what was written, in any thread, also once this is closed."""
        descriptor = os.dup(self._file.fileno())

        def sync() -> None:
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

        return sync

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(path: Path) -> list[Row]:
    """The rows of a log file; a line that a crash cut short is left out.

    Raises:
        LogError: a line in the middle is not JSON.
    """
    return list(stream(path))


def stream(path: str | Path) -> Iterator[Row]:
    """The rows of a log one after the other, for logs that are too large for lists.

    Args:
        path: a log, or a run directory that holds one.

    Raises:
        LogError: there is none, or a line in the middle is damaged; all before it were given.
    """
    path = Path(path)
    log = path / FILE_NAME if path.is_dir() else path
    try:
        file = open(log, "rb")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise LogError(f"{log} cannot be read: {error.strerror}") from error
    with file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return  # cut short by a crash
            try:
                row = decode(line)
            except (orjson.JSONDecodeError, AttributeError) as error:
                raise LogError(f"{log} is damaged in line {number}: {error}") from error
            yield row


_MOST_ROWS = 64


_MOST_SECONDS = 1.0


@attrs.define(eq=False)
class Recorder:
    """Collects one row a step; with a directory it writes them to ``metrics.jsonl``.

    Attributes:
        log: the open file, or ``None``.
        rows: all rows that are settled.
        fresh: rows whose metrics are still tensors, with the samples of their steps.
        flushed: when they were last fetched.
    """

    log: Log | None
    rows: list[Row]
    fresh: list[tuple[Row, int]] = attrs.field(factory=list)
    flushed: float = attrs.field(factory=time.monotonic)

    @classmethod
    def begin(cls, directory: Path | None, size: int) -> Recorder:
        """Open the log of a run.

        Args:
            directory: the run directory, or ``None`` to keep rows in memory only.
            size: bytes of the log that the checkpoint has seen; the rest is cut off.

        Raises:
            LogError: the log is shorter than that.
        """
        log = None if directory is None else Log(directory)
        return cls(log, [] if log is None else log.resume(size))

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return 0 if self.log is None else self.log.size

    @property
    def due(self) -> bool:
        """Whether so much has gathered that it should be fetched."""
        late = time.monotonic() - self.flushed > _MOST_SECONDS
        return bool(self.fresh) and (late or len(self.fresh) >= _MOST_ROWS)

    def add(self, row: Row, samples: int) -> None:
        """Take the row of a step; its metrics may be tensors on a device."""
        self.fresh.append((row, samples))

    def flush(self, sums: Sums, hold_last: bool = False) -> tuple[Sums, Row]:
        """Fetch what has gathered, add it up, and write it.

        Args:
            sums: weighted sums over the epoch so far; not changed.
            hold_last: do not write the last row yet; more will be put in it.

        Returns:
            (new sums, last row), the row empty where there was nothing new.
        """
        fetched = metrics.fetch([row for row, _ in self.fresh])
        for row, (_, samples) in zip(fetched, self.fresh, strict=True):
            numbers = {name: value for name, value in row.items() if _has_mean(name)}
            sums = metrics.added(sums, numbers, samples)
        self.fresh.clear()
        self.flushed = time.monotonic()
        self.write(fetched[:-1] if hold_last else fetched)
        return sums, fetched[-1] if fetched else {}

    def write(self, rows: list[Row]) -> None:
        """Add settled rows."""
        self.rows += rows
        if self.log is not None and rows:
            self.log.append(rows)

    def syncing(self) -> Callable[[], None] | None:
        """A call that makes durable what was written, see ``Log.syncing``."""
        return None if self.log is None else self.log.syncing()

    def close(self) -> None:
        """Close the log."""
        if self.log is not None:
            self.log.close()


def _has_mean(name: str) -> bool:
    return name not in ("step", "epoch", "lr") and not name.startswith("lr.")
