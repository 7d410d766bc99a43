"""The logs of runs: where they are, what to call the runs in a legend, and their columns."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from functrain.errors import LogError
from functrain.plotting import Columns
from functrain.training.metrics_log import FILE_NAME, Row, stream

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


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest names that tell paths apart.

    Args:
        paths: all different.

    Returns:
        As many of the last parts of each path as it takes, without those that all have in common.

    Example:
        >>> short_names([Path("runs/small/seed0"), Path("runs/large/seed0"), Path("other")])
        ['small/seed0', 'large/seed0', 'other']
        >>> short_names([Path("runs/small/seed0"), Path("runs/large/seed0")])
        ['small', 'large']
    """
    parts = [path.absolute().parts for path in paths]
    while len(parts) > 1 and len({each[-1:] for each in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [each[:-1] for each in parts]
    return ["/".join(_shortest(each, parts)) for each in parts]


def _below(path: Path) -> Iterator[Path]:
    for place, directories, names in os.walk(path):
        if any(mark in names for mark in _MARKS):
            directories.clear()  # a run keeps set-aside parts of itself in directories like runs
            yield Path(place)
        directories[:] = [name for name in directories if not name.startswith(".")]


def _natural(path: Path) -> list[tuple[int, str]]:
    words = re.split(r"(\d+)", str(path))
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in words]


def _shortest(own: tuple[str, ...], every: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    for length in range(1, len(own)):
        if sum(other[-length:] == own[-length:] for other in every) == 1:
            return own[-length:]
    return own
