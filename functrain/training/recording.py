"""The rows of a run while it lasts: kept on the device for a while, written once, never changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import attrs

from functrain import metrics
from functrain.metrics import Sums
from functrain.training.log import Log, Row

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
