"""The three figures: the curves of a run, a comparison of runs, and a schedule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from functrain.core.schedule import Schedule
from functrain.errors import (
    ConfigurationError,
    LogError,
    ScheduleStateError,
    UnknownLengthError,
)
from functrain.errors.validators import integer
from functrain.metrics.log_file import Row, stream
from functrain.plotting.chart import Chart, Options, chart_of
from functrain.plotting.colors import THEMES
from functrain.plotting.columns import Columns

if TYPE_CHECKING:
    from functrain.plotting.figure import Picture

FORMATS = (".png", ".svg", ".pdf")


def curves(
    history: Iterable[Row],
    path: str | Path | None = None,
    title: str = "",
    options: Options | None = None,
) -> Picture:
    """Draw the curves of a run.

    Args:
        history: its rows.
        path: where to write the picture, a ``.png``, ``.svg`` or ``.pdf``; by default nowhere.
        title: over the figure.
        options: what to draw.

    Returns:
        A ``matplotlib.figure.Figure`` that notebooks show.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ConfigurationError: an option names an unknown metric, or the path has another ending.
    """
    return draw(chart_of({title: Columns.of(history)}, options, title), path)


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
    labelled = len(runs) == 1 and isinstance(runs[0], Mapping)
    by_label = dict(runs[0]) if labelled else dict(zip(_labels(runs), runs, strict=True))
    if not by_label:
        raise ConfigurationError("compare: expected at least one run, got none")
    columns = {str(label): Columns.of(_rows(run)) for label, run in by_label.items()}
    for label, each in columns.items():
        if not each.length:
            raise LogError(f"compare: the run {label!r} has no steps")
    globs = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    return draw(chart_of(columns, Options(globs, **options), title), path)


def schedule(schedule: Schedule, steps: int | None = None, ax: Any = None) -> Any:
    """Draw the learning rate of each update.

    Args:
        schedule: one that sees no metrics.
        steps: how many updates, as of a run of that length; None is the schedule's horizon.
        ax: matplotlib's ``Axes`` to draw on; None makes new ones, in a figure of their own.

    Returns:
        The ``Axes``, which notebooks show; ``.figure`` has ``savefig``.

    Raises:
        UnknownLengthError: no steps are given, and the schedule has no horizon of its own.
        ScheduleStateError: the lr depends on metrics that are observed.
        MissingExtraError: matplotlib is not installed.
    """
    lrs = rates(schedule, steps)
    theme = THEMES["light"]
    if ax is None:
        from functrain.plotting.figure import axes_of, blank

        ax = axes_of(blank((6, 3.2), theme), theme, "step", "learning rate")
    ax.plot(range(len(lrs)), lrs, color=theme.lines[len(ax.lines) % len(theme.lines)])
    return ax


def rates(schedule: Schedule, steps: int | None = None) -> list[float]:
    """Return the learning rate of every update of a run.

    Example:
        >>> from functrain.schedules import Linear
        >>> rates(Linear(1.0), steps=4)
        [1.0, 0.75, 0.5, 0.25]
    """
    name = type(schedule).__name__
    if getattr(schedule, "observes", None) is not None:
        raise ScheduleStateError(
            f"{name}'s lr depends on the metrics it observes, so there is no curve to draw before "
            "the run: draw the lr that its history holds, or the schedules inside it"
        )
    length = schedule.horizon() if steps is None else steps
    if length is None:
        raise UnknownLengthError(
            f"{name} has no horizon of its own: give the number of updates to draw, steps=N"
        )
    integer(minimum=1).check("steps", length)
    state = schedule.with_horizon(schedule.init(), int(length))
    lrs = []
    for step in range(int(length)):
        lrs.append(schedule.lr(state, step))
        state = schedule.advance(state)
    return lrs


def draw(chart: Chart, path: str | Path | None = None) -> Picture:
    """Draw a chart, and write the picture if there is a path."""
    if path is not None and Path(path).suffix.lower() not in FORMATS:
        raise ConfigurationError(f"{path}: expected a file name ending in {', '.join(FORMATS)}")
    from functrain.plotting.figure import figure_of

    figure = figure_of(chart)
    if path is not None:
        figure.write(path)
    return figure


def _rows(run: Any) -> Iterable[Row]:
    rows = getattr(run, "history", run)
    return stream(rows) if isinstance(rows, str | Path) else rows


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
