"""``metrics.jsonl``: one line a step, written once.

A row is written once its step is settled, evaluation included, and never changed. A checkpoint
records how long the file was; resuming cuts it back to that length, so that after any crash every
step stands in it exactly once.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from functrain.checkpoint.run_directory import METRICS_LOG
from functrain.checkpoint.storage.files import sync_directory
from functrain.errors import LogError

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
