"""Write metrics as JSON lines, in the format of ``metrics.jsonl``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import attrs

from functrain.errors import LogError
from functrain.listeners.sinks.line_file import LineFile
from functrain.listeners.sinks.sink import Sink
from functrain.metrics.log_file import Row, decode, encode
from functrain.training.durations import Duration


def JSONL(  # noqa: N802 (a factory that reads as a class)
    path: str | Path, *, every: Duration | str = "1 step", required: bool = False
) -> Sink:
    """Return a sink that writes the rows of ``metrics.jsonl``, or some of them, as JSON lines.

    Args:
        path: the file. A run that begins at step 0 empties it, a resumed run appends to it.
        every: the interval; rows with an evaluation or epoch means are always written.
        required: raise errors of the destination instead of warning with :class:`SinkWarning`.

    Returns:
        The listener. It writes numbers that are not finite as ``"nan"``, ``"inf"`` or ``"-inf"``.

    Raises:
        LogError: at the beginning of the run, if the file holds something else.

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
class _JSONLines:
    takes_lists: ClassVar[bool] = True

    file: LineFile

    def open(self, after: int, run: str | None) -> None:
        self.file.open_after(lambda line: step_of(line, self.file.path) <= after)

    def write(self, rows: list[Row]) -> None:
        self.file.append(b"".join(map(encode, rows)))

    def flush(self) -> None:
        self.file.sync()

    def close(self) -> None:
        self.file.close()


def step_of(line: bytes, path: Path) -> int:
    """Return the step of a line.

    Raises:
        LogError: the line is not from a metrics log.

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
