"""The x value of every row of a log: its step, epoch, samples or seconds."""

from __future__ import annotations

from array import array
from collections import Counter

from functrain.errors import LogError
from functrain.plotting.columns import Columns

LABELS = {"step": "step", "epoch": "epoch", "samples": "samples", "time": "time (s)"}
# ``fit`` logs no samples and no time, but a listener may.
_LOGGED_AS = {"step": ("step",), "samples": ("samples",), "time": ("seconds", "time")}


def x_values(columns: Columns, unit: str = "step") -> array[float]:
    """Return the x value of every row.

    Args:
        columns: of a run with at least one row.
        unit: ``step``, ``epoch`` (with its fraction), ``samples`` if the log has a column
            ``samples``, or ``time`` if it has a column ``seconds`` or ``time``.

    Raises:
        LogError: a row lacks the column; the message lists the columns of the log.

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


def _epochs(columns: Columns) -> array[float]:
    """Spread rows evenly over their epoch; an unfinished last epoch is as long as the others."""
    epochs = columns.values.get("epoch", array("d"))
    if len(epochs) != columns.length:
        raise LogError(f"the log has no 'epoch' in every row; it has {columns.names()}")
    counts, ended = Counter(epochs), _ended(columns, epochs)
    usual = max((count for epoch, count in counts.items() if epoch in ended), default=None)
    if usual is None:
        raise LogError(
            "no epoch of this run is complete, so its length is unknown; draw over steps instead"
        )
    found, seen = array("d"), Counter[float]()
    for epoch in epochs:
        seen[epoch] += 1
        whole = counts[epoch] if epoch in ended else max(usual, counts[epoch])
        found.append(epoch + seen[epoch] / whole)
    return found


def _ended(columns: Columns, epochs: array[float]) -> set[float]:
    """Return all epochs but the last, and also the last if its final row holds its means."""
    means = [rows for name, rows in columns.rows.items() if name.startswith("epoch/") and rows]
    closed = bool(means) and means[0][-1] == columns.length - 1
    return {epoch for epoch in set(epochs) if closed or epoch != epochs[-1]}
