"""Curves of several runs over each other, and names that tell the runs apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from functrain.errors import ConfigurationError, LogError
from functrain.metrics.log_file import Row, stream
from functrain.plotting.chart import chart_of
from functrain.plotting.columns import Columns
from functrain.plotting.curves import figure_of
from functrain.plotting.options import Options

if TYPE_CHECKING:
    from functrain.plotting.figure import Picture

_PLACE = str | Path


def compare(
    *runs: Any,
    metrics: str | Sequence[str] = (),
    path: str | Path | None = None,
    title: str = "",
    **options: Any,
) -> Picture:
    """Draw the curves of several runs over each other, as ``functrain plot A B`` does.

    Args:
        runs: each a run directory, a ``Run``, a ``History`` or other rows; or one dict of them by
            label. Without labels, directories name the runs.
        metrics: globs of metric names; by default the metrics that people usually look at.
        path: where to write the picture, a ``.png``, ``.svg`` or ``.pdf``; by default nowhere.
        title: over the figure.
        options: ``x``, ``smooth``, ``log`` and ``theme`` of :class:`~functrain.plotting.Options`.

    Returns:
        A ``matplotlib.figure.Figure`` that notebooks show.

    Raises:
        LogError: a run has no steps, or its log is missing or damaged.
        ConfigurationError: there is no run, or an option names an unknown metric.
        MissingExtraError: matplotlib is not installed.

    Example:
        >>> small, large = [{"step": 1, "loss": 2.0}], [{"step": 1, "loss": 3.0}]
        >>> figure = compare({"small": small, "large": large}, metrics="loss")
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['small', 'large']
    """
    named = len(runs) == 1 and isinstance(runs[0], Mapping)
    by_label = dict(runs[0]) if named else dict(zip(_labels(runs), runs, strict=True))
    if not by_label:
        raise ConfigurationError("compare: expected at least one run, got none")
    columns = {str(label): Columns.of(_rows(run)) for label, run in by_label.items()}
    for label, found in columns.items():
        if not found.length:
            raise LogError(f"compare: the run {label!r} has no steps")
    globs = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    return figure_of(chart_of(columns, Options(globs, **options), title), path)


def _rows(run: Any) -> Iterable[Row]:
    rows = getattr(run, "history", run)
    return stream(rows) if isinstance(rows, _PLACE) else rows


def _labels(runs: Sequence[Any]) -> list[str]:
    """Name runs by their directories, and those without one by their place in the call."""
    places = [
        run if isinstance(run, str | Path) else getattr(run, "directory", None) for run in runs
    ]
    known = iter(short_names([Path(place) for place in places if place is not None]))
    labels = [f"run {at}" if place is None else next(known) for at, place in enumerate(places, 1)]
    if len(set(labels)) < len(labels):
        labels = [f"{label} ({at})" for at, label in enumerate(labels, 1)]
    return labels


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest names that tell paths apart.

    They are as many of the last parts of each path as it takes, without those that all have in
    common.

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


def _shortest(own: tuple[str, ...], every: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    for length in range(1, len(own)):
        if sum(other[-length:] == own[-length:] for other in every) == 1:
            return own[-length:]
    return own
