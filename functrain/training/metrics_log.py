"""``metrics.jsonl``: one line a step, written once.

A row is written once its step is complete, evaluation included, and never changed. A checkpoint
records the length of the file. Resuming cuts the file back to that length, so that every step is in
it exactly once after any crash.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from functrain import metrics
from functrain.checkpoint.storage.files import sync_directory
from functrain.errors import LogError
from functrain.metrics import Sums
from functrain.metrics.log_file import FILE_NAME, Row, encode, read
from functrain.training.log_owner import Writer

_MOST_ROWS = 64
_MOST_SECONDS = 1.0


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
        """Cut the file back to its length at a checkpoint, and return its rows.

        Args:
            size: the length in bytes.

        Raises:
            LogError: the file is shorter, so rows were lost.
        """
        if self.size < size:
            raise LogError(
                f"{self.path} has {self.size} bytes, but had {size} when the checkpoint was "
                "written: rows were lost. Restore the file, or move the run directory away to "
                "start from scratch."
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
        """Return a function that makes the rows durable, in any thread and even after closing.

        Raises:
            LogError: the file was removed or replaced, so that the rows went nowhere.
        """
        if not self._is_in_place():
            raise LogError(
                f"{self.path} was removed or replaced during the run: its rows are lost, and a "
                "checkpoint without them could not be resumed. Call fit again: it resumes from the "
                "checkpoints that are left, if their rows are too, and else starts from scratch."
            )
        descriptor = os.dup(self._file.fileno())

        def sync() -> None:
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

        return sync

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@attrs.define(eq=False)
class Recorder:
    """Collects one row a step; with a directory it writes them to ``metrics.jsonl``.

    Attributes:
        log: the open file, or ``None``.
        rows: all complete rows.
        buffered: rows whose metrics are still tensors, with the samples of their steps.
        flushed: time of the last flush.
    """

    log: Log | None
    rows: list[Row]
    buffered: list[tuple[Row, int]] = attrs.field(factory=list)
    flushed: float = attrs.field(factory=time.monotonic)

    @classmethod
    def begin(cls, directory: Path | None, size: int, writer: Writer | None = None) -> Recorder:
        """Open the log of a run.

        Args:
            directory: the run directory, or ``None`` to keep rows in memory only.
            size: length of the log at the checkpoint; the rest is cut off.
            writer: of a run without a checkpoint in this directory.

        Raises:
            LogError: the log is shorter than that, or it is of another run.
        """
        if writer is not None and directory is not None:
            writer.take(directory / FILE_NAME, size)
        log = None if directory is None else Log(directory)
        return cls(log, [] if log is None else log.resume(size))

    @property
    def size(self) -> int:
        """Return the bytes written so far."""
        return 0 if self.log is None else self.log.size

    @property
    def due(self) -> bool:
        """Return whether enough rows or time have passed to write the buffer."""
        late = time.monotonic() - self.flushed > _MOST_SECONDS
        return bool(self.buffered) and (late or len(self.buffered) >= _MOST_ROWS)

    def add(self, row: Row, samples: int) -> None:
        """Buffer the row of a step; its metrics may be tensors on a device."""
        self.buffered.append((row, samples))

    def flush(self, sums: Sums, hold_last: bool = False) -> tuple[Sums, Row]:
        """Fetch the buffered rows from the device, add them to the sums, and write them.

        Args:
            sums: weighted sums over the epoch so far; not changed.
            hold_last: do not write the last row yet; metrics may still be added to it.

        Returns:
            (new sums, last row); the row is empty if nothing was buffered.
        """
        fetched = metrics.fetch([row for row, _ in self.buffered])
        for row, (_, samples) in zip(fetched, self.buffered, strict=True):
            numbers = {name: value for name, value in row.items() if _has_mean(name)}
            sums = metrics.added(sums, numbers, samples)
        self.buffered.clear()
        self.flushed = time.monotonic()
        self.write(fetched[:-1] if hold_last else fetched)
        return sums, fetched[-1] if fetched else {}

    def write(self, rows: list[Row]) -> None:
        """Append complete rows."""
        self.rows += rows
        if self.log is not None and rows:
            self.log.append(rows)

    def syncing(self) -> Callable[[], None] | None:
        """Return a function that makes the written rows durable; see ``Log.syncing``."""
        return None if self.log is None else self.log.syncing()

    def close(self) -> None:
        """Close the log."""
        if self.log is not None:
            self.log.close()


def _has_mean(name: str) -> bool:
    return name not in ("step", "epoch", "lr") and not name.startswith("lr.")
