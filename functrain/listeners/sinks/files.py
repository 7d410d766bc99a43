"""Write metrics to a file: comma-separated values, or JSON lines."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, ClassVar

import attrs

from functrain.errors import LogError
from functrain.listeners.sinks.configuration import Config
from functrain.listeners.sinks.line_file import LineFile
from functrain.listeners.sinks.sink import Sink
from functrain.metrics.log_file import Row, decode, encode
from functrain.training.durations import Duration
from functrain.training.log_owner import Writer

_FIRST = ["step", "epoch"]


def CSV(  # noqa: N802 (a factory that reads as a class)
    path: str | Path, *, every: Duration | str = "1 step", required: bool = False
) -> Sink:
    """Return a sink that writes a table for pandas and spreadsheets.

    Columns are in the order in which metrics first occur. A metric that first occurs later, such
    as one of an evaluation, becomes the last column, which rewrites the file. A cell is empty if
    the metric was not measured, and otherwise exact (``float(cell)`` is the number).

    Args:
        path: the file. A resumed run appends to it, and the same run made again begins it from
            scratch. A hidden file beside it says which run wrote it.
        every: the interval; rows with an evaluation or epoch means are always written.
        required: raise errors of the destination instead of warning with :class:`SinkWarning`.

    Returns:
        The listener.

    Raises:
        LogError: at the beginning of the run, if the file is of another run or something else.

    Example:
        >>> import functrain as ft, tempfile, torch
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> path = Path(tempfile.mkdtemp(), "metrics.csv")
        >>> _ = ft.fit(program, [torch.ones(4, 2)] * 8, until="3 steps", listeners=[CSV(path)])
        >>> path.read_text().splitlines()[0]
        'step,epoch,loss,lr,grad_norm'
    """
    return Sink(_Table(LineFile(path)), f"CSV({str(path)!r})", every, required)


@attrs.define(eq=False)
class LogFile:
    """A file of lines with steps, of JSON unless a subclass says otherwise."""

    file: LineFile
    config: Config = attrs.field(init=False, factory=dict)

    def configure(self, config: Config) -> None:
        """Take the configuration of the run."""
        self.config = config

    def open(self, after: int, run: str | None) -> str:
        """Keep the lines up to a step."""
        writer = Writer.of(self.config, run)
        self.file.open_after(lambda line: step_of(line, self.file.path) <= after, writer)
        return writer.run

    def last_step(self) -> int:
        """Return the step of the last line, -1 without one."""
        lines = self.file.read().splitlines()
        return step_of(lines[-1], self.file.path) if lines else -1

    def flush(self) -> None:
        """Sync the file to the disk."""
        self.file.sync()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


@attrs.define(eq=False)
class _Table(LogFile):
    columns: list[str] = attrs.field(factory=list)

    def open(self, after: int, run: str | None) -> str:
        header, rows = self._read()
        kept = [row for row in rows if int(row[0]) <= after]
        writer = Writer.of(self.config, run)
        writer.take(self.file.path, 0 if len(kept) < len(rows) else len(self.file.read()))
        # Columns that only later steps have are at the right, and are cut off with them.
        width = max((max(i for i, cell in enumerate(row, 1) if cell) for row in kept), default=0)
        self.columns = header[:width]
        if len(kept) < len(rows) or width < len(header):
            self.file.replace(_padded(self.columns, kept))
        else:
            self.file.open(len(self.file.read()))
        return writer.run

    def last_step(self) -> int:
        _, rows = self._read()
        return int(rows[-1][0]) if rows else -1

    def write(self, rows: list[Row]) -> None:
        columns = list(dict.fromkeys([*self.columns, *(name for row in rows for name in row)]))
        if columns != self.columns:
            _, before = self._read()
            self.file.replace(_padded(columns, before))
            self.columns = columns  # only after success, since a failed write is tried again
        self.file.append(_lines([[row.get(name, "") for name in columns] for row in rows]))

    def _read(self) -> tuple[list[str], list[list[str]]]:
        lines = list(csv.reader(io.StringIO(self.file.read().decode(errors="replace"))))
        header, *rows = lines or [[]]
        if lines and (header[:2] != _FIRST or not all(row and row[0].isdigit() for row in rows)):
            raise LogError(
                f"{self.file.path} is not the table of a run (it begins with "
                f"{','.join(header)[:60]!r}), so it is not overwritten. "
                "Choose another path, or move the file away."
            )
        return header, rows


def _padded(columns: list[str], rows: list[list[str]]) -> bytes:
    """Format header and rows, padding each row to the length of the header."""
    width = len(columns)
    padded = [(row + [""] * width)[:width] for row in rows]
    return _lines([columns, *padded]) if columns else b""


def _lines(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def JSONL(  # noqa: N802 (a factory that reads as a class)
    path: str | Path, *, every: Duration | str = "1 step", required: bool = False
) -> Sink:
    """Return a sink that writes the rows of ``metrics.jsonl``, or some of them, as JSON lines.

    Args:
        path: the file. A resumed run appends to it, and the same run made again begins it from
            scratch. A hidden file beside it says which run wrote it.
        every: the interval; rows with an evaluation or epoch means are always written.
        required: raise errors of the destination instead of warning with :class:`SinkWarning`.

    Returns:
        The listener. It writes numbers that are not finite as ``"nan"``, ``"inf"`` or ``"-inf"``.

    Raises:
        LogError: at the beginning of the run, if the file is of another run or something else.

    Example:
        >>> import functrain as ft, tempfile, torch
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> path = Path(tempfile.mkdtemp(), "some.jsonl")
        >>> listeners = [JSONL(path, every="2 steps")]
        >>> _ = ft.fit(program, [torch.ones(4, 2)] * 8, until="6 steps", listeners=listeners)
        >>> [decode(line)["step"] for line in path.read_bytes().splitlines()]
        [2, 4, 6]
    """
    return Sink(_JSONLines(LineFile(path)), f"JSONL({str(path)!r})", every, required)


@attrs.define(eq=False)
class _JSONLines(LogFile):
    takes_lists: ClassVar[bool] = True

    def write(self, rows: list[Row]) -> None:
        self.file.append(b"".join(map(encode, rows)))


def step_of(line: bytes, path: Path) -> int:
    """Return the step of a line.

    Example:
        >>> step_of(b'{"step":3,"loss":0.5}', Path("some.jsonl"))
        3
    """
    try:
        step: int = decode(line)["step"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LogError(
            f"{path} is not the log of a run (it has the line {line[:60]!r}), so it is not "
            "overwritten. Choose another path, or move the file away."
        ) from error
    return step
