"""The log of a run by metric instead of by step, in little memory; and the x value of a row."""

from __future__ import annotations

import math
import statistics
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import numpy as np

from functrain.errors import LogError
from functrain.metrics.by_member import best_member
from functrain.metrics.mode import mode_of_name

LABELS = {"step": "step", "epoch": "epoch", "samples": "samples", "time": "time (s)"}
# ``fit`` logs no samples and no time, but a listener may.
_LOGGED_AS = {"step": ("step",), "samples": ("samples",), "time": ("seconds", "time")}
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


def x_values(columns: Columns, unit: str = "step") -> array[float]:
    """Return the x value of every row.

    The unit is ``step``, ``epoch`` (with its fraction), ``samples`` if the log has that column, or
    ``time`` if it has a column ``seconds`` or ``time``.

    Example:
        >>> rows = [{"step": step, "epoch": (step - 1) // 2} for step in range(1, 6)]
        >>> list(x_values(Columns.of(rows), "epoch"))
        [0.5, 1.0, 1.5, 2.0, 2.5]
    """
    if unit == "epoch":
        return _epochs(columns)
    for name in _LOGGED_AS[unit]:
        if len(columns.values.get(name, ())) == columns.length:
            return columns.values[name]
    wanted = " or ".join(map(repr, _LOGGED_AS[unit]))
    raise LogError(
        f"there is no {wanted} in every row of the log, so it cannot be drawn over {unit}; "
        f"it has {columns.names()}. A listener whose on_batch_end returns it adds it."
    )


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


def _epochs(columns: Columns) -> array[float]:
    """Spread rows evenly over their epoch; an unfinished last epoch is as long as the others."""
    epochs = np.asarray(columns.values.get("epoch", ()))
    if len(epochs) != columns.length:
        raise LogError(f"the log has no 'epoch' in every row; it has {columns.names()}")
    _, first, number, counts = np.unique(
        epochs, return_index=True, return_inverse=True, return_counts=True
    )
    # The last epoch is complete if its final row holds its means.
    means = [rows for name, rows in columns.rows.items() if name.startswith("epoch/")]
    ended = counts if means and means[0][-1] == columns.length - 1 else counts[:-1]
    if not len(ended):
        raise LogError(
            "no epoch of this run is complete, so its length is unknown; draw over steps instead"
        )
    lengths = np.append(ended, counts[len(ended) :].clip(min=ended.max()))
    seen = np.arange(1, len(epochs) + 1) - first[number]
    return array("d", epochs + seen / lengths[number])
