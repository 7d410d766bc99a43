"""The logs of runs: where they are, and their columns."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from functrain.errors import LogError
from functrain.metrics.log_file import FILE_NAME, Row, stream
from functrain.plotting import Columns

# Either file makes a directory a run; a configuration may belong to several runs below it.
_MARKS = (FILE_NAME, "FORMAT")


@attrs.frozen(eq=False)
class RunLog:
    """The log of a run, up to its end or to the first damaged line.

    Attributes:
        columns: everything before that line.
        problem: why there is no more, or ``None``.
    """

    columns: Columns
    problem: str | None


def read_log(directory: Path) -> RunLog:
    """Read the log of a run directory as far as possible.

    Example:
        >>> read_log(Path("nowhere")).problem
        'nowhere cannot be read: No such file or directory'
    """
    problems: list[str] = []

    def rows() -> Iterator[Row]:
        try:
            yield from stream(directory)
        except LogError as error:
            problems.append(str(error))

    columns = Columns.of(rows())
    return RunLog(columns, next(iter(problems), None))


def runs_at(paths: Sequence[Path]) -> list[Path]:
    """Return the run directories at or below some paths, each once.

    Args:
        paths: of runs, or of directories that hold runs at any depth.

    Returns:
        Run directories, those of one path in natural order: ``seed2`` before ``seed10``. A path
        without a run stands for itself.
    """
    found = [run for path in paths for run in (sorted(_below(path), key=_natural) or [path])]
    return list({run.resolve(): run for run in found}.values())


def _below(path: Path) -> Iterator[Path]:
    for place, directories, names in os.walk(path):
        if any(mark in names for mark in _MARKS):
            directories.clear()  # a run keeps set-aside parts of itself in directories like runs
            yield Path(place)
        directories[:] = [name for name in directories if not name.startswith(".")]


def _natural(path: Path) -> list[tuple[int, str]]:
    words = re.split(r"(\d+)", str(path))
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in words]
