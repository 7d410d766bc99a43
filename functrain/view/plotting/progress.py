"""How far a run was at each row of its log: in steps, epochs, samples or seconds."""

from __future__ import annotations

from array import array
from collections import Counter

from functrain.errors import ConfigurationError, LogError
from functrain.errors.nearest import nearest
from functrain.view.plotting.columns import Columns

LABELS = {"step": "step", "epoch": "epoch", "samples": "samples", "time": "time (s)"}
# What ``fit`` does not log, a listener may.
_LOGGED_AS = {"step": ("step",), "samples": ("samples",), "time": ("seconds", "time")}
PLACES = ("step", "epoch", "samples", "seconds", "time")


def check(by: str) -> None:
    """Refuse what is none of the units.

    Raises:
        ConfigurationError: names those there are.
    """
    if by not in LABELS:
        raise ConfigurationError(
            f"x={by!r}: expected one of {', '.join(LABELS)}{nearest(by, LABELS)}"
        )


def positions(columns: Columns, by: str = "step") -> array[float]:
    """The place of every row on the horizontal axis.

    Args:
        columns: of a run with at least one row.
        by: ``step``, ``epoch`` (with its fraction), ``samples`` or ``time``, the last two where
            the log has a column ``samples``, and ``seconds`` or ``time``.

    Raises:
        LogError: the log does not say it for every row; names the columns there are.

    Example:
        >>> rows = [{"step": step, "epoch": (step - 1) // 2} for step in range(1, 6)]
        >>> list(positions(Columns.of(rows), "epoch"))
        [0.5, 1.0, 1.5, 2.0, 2.5]
    """
    check(by)
    if by == "epoch":
        return _epochs(columns)
    for name in _LOGGED_AS[by]:
        if len(columns.values.get(name, ())) == columns.length:
            return columns.values[name]
    wanted = " or ".join(map(repr, _LOGGED_AS[by]))
    raise LogError(
        f"there is no {wanted} in every row of the log, so it cannot be drawn over {by}; "
        f"it has {columns.names()}. A listener whose on_batch_end returns it adds it."
    )


def _epochs(columns: Columns) -> array[float]:
    """Rows spread evenly over their epoch; the last is as long as those before it."""
    epochs = columns.values.get("epoch", array("d"))
    if len(epochs) != columns.length:
        raise LogError(f"the log has no 'epoch' in every row; it has {columns.names()}")
    counts, ended = Counter(epochs), _ended(columns, epochs)
    usual = max((count for epoch, count in counts.items() if epoch in ended), default=None)
    if usual is None:
        raise LogError(
            "no epoch of this run is complete, so how long one is cannot be told; draw over steps"
        )
    found, seen = array("d"), Counter[float]()
    for epoch in epochs:
        seen[epoch] += 1
        whole = counts[epoch] if epoch in ended else max(usual, counts[epoch])
        found.append(epoch + seen[epoch] / whole)
    return found


def _ended(columns: Columns, epochs: array[float]) -> set[float]:
    """All epochs but the last, and that too if its means stand in the last row that is of it."""
    means = [rows for name, rows in columns.rows.items() if name.startswith("epoch/") and rows]
    closed = bool(means) and means[0][-1] == columns.length - 1
    return {epoch for epoch in set(epochs) if closed or epoch != epochs[-1]}
