"""Curves of one run, of several, and of a schedule, in one call each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from functrain.core.schedule import Schedule
from functrain.errors import ConfigurationError, ScheduleStateError, UnknownLengthError
from functrain.errors.validators import integer
from functrain.plotting.chart import Chart, chart_of
from functrain.plotting.colors import THEMES
from functrain.plotting.columns import Columns
from functrain.plotting.options import Options

if TYPE_CHECKING:
    from functrain.plotting.figure import Picture

FORMATS = (".png", ".svg", ".pdf")


def figure_of(chart: Chart, path: str | Path | None = None) -> Picture:
    """Draw a chart.

    Args:
        chart: what to draw.
        path: where to write the picture, a ``.png``, ``.svg`` or ``.pdf``; by default nowhere.

    Returns:
        A ``matplotlib.figure.Figure`` that notebooks show.

    Raises:
        ConfigurationError: the path has another ending.
        MissingExtraError: matplotlib is not installed.
    """
    if path is not None and Path(path).suffix.lower() not in FORMATS:
        raise ConfigurationError(f"{path}: expected a file name ending in {', '.join(FORMATS)}")
    from functrain.plotting.figure import figure_of

    figure = figure_of(chart)
    if path is not None:
        figure.write(path)
    return figure


def curves(
    history: Iterable[Mapping[str, Any]],
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
        ConfigurationError: an option names an unknown metric.
    """
    return figure_of(chart_of({title: Columns.of(history)}, options, title), path)


def schedule_curve(schedule: Schedule, steps: int | None = None, ax: Any = None) -> Any:
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

    Args:
        schedule: one that sees no metrics.
        steps: length of the run in updates; None is the schedule's own horizon.

    Raises:
        UnknownLengthError: no steps are given, and the schedule has no horizon of its own.
        ScheduleStateError: the lr depends on metrics that are observed.
        ConfigurationError: ``steps`` is no integer, or less than 1.

    Example:
        >>> from functrain.schedules import Linear
        >>> rates(Linear(1.0), steps=4)
        [1.0, 0.75, 0.5, 0.25]
    """
    name = type(schedule).__name__
    if schedule.observes is not None:
        raise ScheduleStateError(
            f"{name}'s lr depends on the metrics it observes, so there is no curve to draw before "
            "the run: draw the lr that its history holds, or the schedules inside it"
        )
    length = schedule.horizon() if steps is None else steps
    if length is None:
        raise UnknownLengthError(
            f"{name} has no horizon of its own: give the number of updates to draw, {name}(...)"
            ".plot(steps=N)"
        )
    integer(minimum=1).check(f"{name}.plot: steps", length)
    state = schedule.with_horizon(schedule.init(), int(length))
    lrs = []
    for step in range(int(length)):
        lrs.append(schedule.lr(state, step))
        state = schedule.advance(state)
    return lrs
