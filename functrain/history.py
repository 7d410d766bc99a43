"""The log of a run: one row a step, in memory and in ``metrics.jsonl``.

A row is written once its step is settled, evaluation included, and never changed. A checkpoint
records how long the file was; resuming cuts it back to that length, so that after any crash every
step stands in it exactly once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, overload

import attrs
import orjson

from functrain.checkpoint.storage.files import sync_directory
from functrain.errors import ConfigurationError, LogError
from functrain.extras import require

Row = dict[str, Any]
FILE_NAME = "metrics.jsonl"


@attrs.frozen(eq=False, repr=False)
class History:
    """Rows of a run in order of steps; each maps metric names to numbers.

    Args:
        rows: one a step.

    Example:
        >>> rows = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "eval/loss": 1.0}]
        >>> history = History(rows)
        >>> history["loss"], history.column("eval/loss"), len(history[-1:])
        ([0.5, 0.25], ([2], [1.0]), 1)
        >>> history
        History: 2 steps, 2 metrics
             | training | evaluation
        step |     loss |  eval/loss
           1 |      0.5 |
           2 |     0.25 |          1
    """

    rows: list[Row]

    @classmethod
    def read(cls, path: str | Path) -> History:
        """The history of a run that was written, finished or not.

        Args:
            path: the run directory, or its ``metrics.jsonl``.

        Raises:
            LogError: there is no log, or it is damaged.
        """
        return cls(list(stream(path)))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @overload
    def __getitem__(self, which: str) -> list[float]: ...
    @overload
    def __getitem__(self, which: slice) -> History: ...
    @overload
    def __getitem__(self, which: int) -> Row: ...
    def __getitem__(self, which: str | slice | int) -> list[float] | History | Row:
        """A metric's values where it was measured, some of the steps, or one row."""
        if isinstance(which, str):
            return self.column(which)[1]
        return History(self.rows[which]) if isinstance(which, slice) else self.rows[which]

    def __repr__(self) -> str:
        from functrain.reporting.history_table import text

        return text(self)

    def _repr_html_(self) -> str:
        from functrain.reporting.history_table import html

        return html(self)

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

    def last(self, name: str) -> float:
        """The value of a metric when it was last measured.

        Raises:
            KeyError: it never was.
        """
        return self.column(name)[1][-1]

    def best(self, name: str, mode: Literal["min", "max"] = "min") -> tuple[int, float]:
        """Step and value at which a metric was best, first if several times; never NaN or Inf.

        Args:
            name: of the metric.
            mode: whether ``min`` or ``max`` is best.

        Raises:
            KeyError: it was never measured.
            LogError: it was never finite.
            ConfigurationError: the mode is neither.

        Example:
            >>> rows = [{"step": s, "loss": x} for s, x in enumerate((0.5, math.nan, 0.2), 1)]
            >>> History(rows).best("loss")
            (3, 0.2)
        """
        if mode not in ("min", "max"):
            raise ConfigurationError(f"mode={mode!r}: expected 'min' or 'max'")
        pairs = [pair for pair in zip(*self.column(name), strict=True) if math.isfinite(pair[1])]
        if not pairs:
            raise LogError(f"{name!r} was never finite in these {len(self)} steps")
        return (min if mode == "min" else max)(pairs, key=lambda pair: pair[1])

    def plot(
        self,
        *metrics: str,
        path: str | Path | None = None,
        title: str = "",
        x: str = "step",
        smooth: float = 0.05,
        log: bool | None = None,
    ) -> Any:
        """Draw curves; see :class:`functrain.plotting.Options` for the options.

        Args:
            metrics: globs of names; by default what is usually looked at.
            path: where to write the picture; by default it is not written.
            title: over the figure.
            x: ``step``, ``epoch``, ``samples`` or ``time``.
            smooth: training metrics are smoothed over this share of the steps.
            log: logarithmic values, always or never; by default where it shows more.

        Returns:
            A ``matplotlib.figure.Figure``; notebooks show it after ``%matplotlib inline``.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from functrain.plotting import Options, curves

        return curves(self, path, title, Options(metrics, x, smooth, log))

    def to_pandas(self) -> Any:
        """The rows as a ``pandas.DataFrame`` by step, NaN where a metric was not measured.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        names = self.names()
        frame = require("pandas", "pandas").DataFrame(self.rows, columns=names)
        return frame.set_index("step") if "step" in names else frame


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
