"""The log of a run by metric instead of by step, in little memory."""

from __future__ import annotations

import math
import statistics
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from functrain.metrics.by_member import best_member
from functrain.metrics.mode import mode_of_name

Band = tuple["array[float]", "array[float]"]


@attrs.frozen(eq=False)
class Columns:
    """The values of each metric, and the rows that hold them.

    A million rows of eight metrics take 128 MB here, and a gigabyte as dictionaries.

    Attributes:
        length: how many rows there are.
        rows: by metric, the numbers of its rows, from 0.
        values: by metric, its values there; they may be NaN or infinite. Of a population they are
            those of the best member in each row, or the median where no value is better.
        bands: by metric of a population, the quartiles of its members there.
        members: of a population, else 0.

    Example:
        >>> columns = Columns.of([{"step": 1, "loss": 2.0}, {"step": 2, "eval/loss": 1.0}])
        >>> columns.names(), list(columns.rows["eval/loss"]), list(columns.values["eval/loss"])
        (['step', 'loss', 'eval/loss'], [1], [1.0])
    """

    length: int
    rows: dict[str, array[int]]
    values: dict[str, array[float]]
    bands: dict[str, Band] = attrs.field(factory=dict)
    members: int = 0

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Columns:
        """Sort rows into columns; values that are no numbers are left out."""
        numbers: dict[str, array[int]] = defaultdict(lambda: array("q"))
        values: dict[str, array[float]] = defaultdict(lambda: array("d"))
        bands: dict[str, Band] = defaultdict(lambda: (array("d"), array("d")))
        length = members = 0
        for row in rows:
            for name, value in row.items():
                if isinstance(value, (float, int)):
                    numbers[name].append(length)
                    values[name].append(value)
                elif isinstance(value, list):
                    members = len(value)
                    numbers[name].append(length)
                    line, *quartiles = _spread(name, value)
                    values[name].append(line)
                    for side, quartile in zip(bands[name], quartiles, strict=True):
                        side.append(quartile)
            length += 1
        return cls(length, dict(numbers), dict(values), dict(bands), members)

    def names(self) -> list[str]:
        """Return all metrics, in order of first appearance."""
        return list(self.values)

    def steps(self) -> array[float] | None:
        """Return the step of every row, ``None`` if a row has none."""
        steps = self.values.get("step")
        return steps if steps is not None and len(steps) == self.length else None


def _spread(name: str, values: list[float | None]) -> tuple[float, float, float]:
    """Return the best value or the median, and the quartiles of finite values; NaN without any."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite:
        return math.nan, math.nan, math.nan
    mode = mode_of_name(name)
    at = None if mode is None else best_member(finite, mode)
    several = finite if len(finite) > 1 else finite * 2
    low, median, high = statistics.quantiles(several, n=4, method="inclusive")
    return median if at is None else finite[at], low, high
