"""The log of a run: one row a step, in memory and in ``metrics.jsonl``.

A row is written once its step is settled, evaluation included, and never changed. A checkpoint
records how long the file was; resuming cuts it back to that length, so that after any crash every
step stands in it exactly once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import attrs
import orjson

from functrain.checkpoint.storage.files import sync_directory
from functrain.errors import LogError

Row = dict[str, Any]
FILE_NAME = "metrics.jsonl"


@attrs.frozen(eq=False, repr=False)
class History:
    """Rows of a run in order of steps; each maps metric names to numbers.

    Example:
        >>> rows = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "eval/loss": 1.0}]
        >>> history = History(rows)
        >>> history["loss"], history.column("eval/loss")
        ([0.5, 0.25], ([2], [1.0]))
    """

    rows: list[Row]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> list[float]:
        return self.column(name)[1]

    def __repr__(self) -> str:
        return f"History({len(self)} steps; {', '.join(self.names())})"

    def _repr_html_(self) -> str:
        last = self.rows[-1] if self.rows else {}
        cells = "".join(f"<tr><td>{escape(k)}</td><td>{v!r}</td></tr>" for k, v in last.items())
        return f"<b>{escape(repr(self))}</b><table>{cells}</table>"

    def names(self) -> list[str]:
        """All metrics that occur, in order of first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def column(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one metric, where it was measured.

        Raises:
            KeyError: no row has it; the message lists the names there are.
        """
        found = [(row["step"], row[name]) for row in self.rows if name in row]
        if not found:
            raise KeyError(f"{name!r} is not in this history; it has {self.names()}")
        return [step for step, _ in found], [value for _, value in found]


def encode(row: Row) -> bytes:
    r"""A row as one line of JSON; what is not finite is written as a string (JSON has no NaN).

    Example:
        >>> encode({"step": 1, "loss": math.nan})
        b'{"step":1,"loss":"nan"}\n'
    """
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
    *lines, _ = path.read_bytes().split(b"\n")
    try:
        return [decode(line) for line in lines]
    except orjson.JSONDecodeError as error:
        raise LogError(f"{path} is damaged: {error}") from error
