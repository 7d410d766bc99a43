"""The log of a run by metric instead of by step, in little memory."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import attrs


@attrs.frozen(eq=False)
class Columns:
    """The values of each metric, and the rows that hold them.

    A million rows of eight metrics take 128 MB here, and a gigabyte as dictionaries.

    Attributes:
        length: how many rows there are.
        rows: by metric, the numbers of its rows, from 0.
        values: by metric, its values there; they may be NaN or infinite.

    Example:
        >>> columns = Columns.of([{"step": 1, "loss": 2.0}, {"step": 2, "eval/loss": 1.0}])
        >>> columns.names(), list(columns.rows["eval/loss"]), list(columns.values["eval/loss"])
        (['step', 'loss', 'eval/loss'], [1], [1.0])
    """

    length: int
    rows: dict[str, array[int]]
    values: dict[str, array[float]]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Columns:
        """Sort rows into columns; values that are no numbers are left out."""
        numbers: dict[str, array[int]] = defaultdict(lambda: array("q"))
        values: dict[str, array[float]] = defaultdict(lambda: array("d"))
        length = 0
        for row in rows:
            for name, value in row.items():
                if isinstance(value, (float, int)):
                    numbers[name].append(length)
                    values[name].append(value)
            length += 1
        return cls(length, dict(numbers), dict(values))

    def names(self) -> list[str]:
        """Return all metrics, in order of first appearance."""
        return list(self.values)

    def steps(self) -> array[float] | None:
        """Return the step of every row, ``None`` if a row has none."""
        steps = self.values.get("step")
        return steps if steps is not None and len(steps) == self.length else None
