"""What runs are called in a legend, and which runs paths stand for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from functrain.training.metrics_log import FILE_NAME

# Either makes a directory that of a run; a configuration may be that of several in it.
_MARKS = (FILE_NAME, "FORMAT")


def distinguishing(paths: Sequence[Path]) -> list[str]:
    """The shortest names that tell paths apart.

    Args:
        paths: all different.

    Returns:
        The last parts of each: as many as it takes, without those that all have in common.

    Example:
        >>> distinguishing([Path("runs/small/seed0"), Path("runs/large/seed0"), Path("other")])
        ['small/seed0', 'large/seed0', 'other']
        >>> distinguishing([Path("runs/small/seed0"), Path("runs/large/seed0")])
        ['small', 'large']
    """
    parts = [path.absolute().parts for path in paths]
    while len(parts) > 1 and len({each[-1:] for each in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [each[:-1] for each in parts]
    return ["/".join(_shortest(each, parts)) for each in parts]


def _shortest(own: tuple[str, ...], every: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    for length in range(1, len(own)):
        if sum(other[-length:] == own[-length:] for other in every) == 1:
            return own[-length:]
    return own


def runs_at(paths: Sequence[Path]) -> list[Path]:
    """The run directories that paths stand for, each once.

    Args:
        paths: of runs, or of directories that hold runs at any depth.

    Returns:
        Run directories, those of one path in natural order: ``seed2`` before ``seed10``. A path
        that holds no run stands for itself.
    """
    found = [run for path in paths for run in (sorted(_below(path), key=_natural) or [path])]
    return list({run.resolve(): run for run in found}.values())


def _below(path: Path) -> Iterator[Path]:
    for place, directories, names in os.walk(path):
        if any(mark in names for mark in _MARKS):
            directories.clear()  # what an earlier end of a run left in it is another run
            yield Path(place)
        directories[:] = [name for name in directories if not name.startswith(".")]


def _natural(path: Path) -> list[tuple[int, str]]:
    words = re.split(r"(\d+)", str(path))
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in words]
