"""Logs of runs for plots and reports: as much as can be read, and what cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs

from functrain.errors import LogError
from functrain.training.metrics_log import Row, stream
from functrain.view.plotting.columns import Columns


@attrs.frozen(eq=False)
class Loaded:
    """The log of a run, up to its end or to where it is damaged.

    Attributes:
        columns: what was read.
        problem: why there is no more, or ``None``.
    """

    columns: Columns
    problem: str | None


def loaded(directory: Path) -> Loaded:
    """Read the log of a run directory.

    Example:
        >>> loaded(Path("nowhere")).problem
        'nowhere cannot be read: No such file or directory'
    """
    problems: list[str] = []

    def rows() -> Iterator[Row]:
        try:
            yield from stream(directory)
        except LogError as error:
            problems.append(str(error))

    columns = Columns.of(rows())
    return Loaded(columns, next(iter(problems), None))
