"""A sink of JSON lines, in the form of ``metrics.jsonl``."""

from __future__ import annotations

from pathlib import Path

import attrs

from functrain.errors import LogError
from functrain.listeners.sinks.line_file import LineFile
from functrain.listeners.sinks.sink import Sink
from functrain.training.durations import Duration
from functrain.training.metrics_log import Row, decode, encode


def JSONL(  # noqa: N802 (reads as the class of what it makes)
    path: str | Path, *, every: Duration | str = "1 step", required: bool = False
) -> Sink:
    """A sink that writes one JSON object a line: the rows of ``metrics.jsonl``, or some of them.

    Args:
        path: the file. A run that begins at step 0 empties it, a resumed one goes on in it.
        every: of which steps; those with an evaluation or the means of an epoch are always written.
        required: a failure ends the run instead of being told in a :class:`SinkWarning`.

    Returns:
        The listener. What is not finite is written as ``"nan"``, ``"inf"`` or ``"-inf"``.

    Raises:
        LogError: at the beginning of the run, if something else stands in the file.

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
    file: LineFile

    def open(self, after: int, run: str | None) -> None:
        kept = 0
        for line in self.file.read().splitlines(keepends=True):
            if step_of(line, self.file.path) > after:
                break
            kept += len(line)
        self.file.open(kept)

    def write(self, rows: list[Row]) -> None:
        self.file.append(b"".join(map(encode, rows)))

    def flush(self) -> None:
        self.file.sync()

    def close(self) -> None:
        self.file.close()


def step_of(line: bytes, path: Path) -> int:
    """The step that a line of a file is of.

    Raises:
        LogError: the line is not of a log, so the file is someone else's.

    Example:
        >>> step_of(b'{"step":3,"loss":0.5}', Path("some.jsonl"))
        3
    """
    try:
        step: int = decode(line)["step"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LogError(
            f"{path} is no log of a run (it has the line {line[:60]!r}), and is not written over. "
            "Choose another path, or move it away."
        ) from error
    return step
