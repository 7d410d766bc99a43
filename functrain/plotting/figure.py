"""A chart as a matplotlib figure, for PNG, PDF and SVG files and for notebooks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from functrain.errors.optional import require
from functrain.plotting.axis import Axis
from functrain.plotting.chart import Chart, Line, Panel, Points, chart_of
from functrain.plotting.colors import DASHES, LIGHT
from functrain.plotting.columns import Columns
from functrain.plotting.decimation import undrawable
from functrain.plotting.options import Options

DOTS_PER_INCH = 140
_COLUMNS, _PIXELS, _FEW = 2, 1200, 60
_INK, _QUIET, _RULE = "#1b1f24", "#5c6570", "#e3e6ea"


def curves(
    history: Iterable[Mapping[str, Any]],
    path: str | Path | None = None,
    title: str = "",
    options: Options | None = None,
) -> Any:
    """Draw the curves of a run with matplotlib.

    Args:
        history: its rows.
        path: where to write the picture; by default it is not written.
        title: over the figure.
        options: what to draw.

    Returns:
        A ``matplotlib.figure.Figure``; notebooks show it after ``%matplotlib inline``.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ConfigurationError: an option names an unknown metric.
    """
    figure = figure_of(chart_of({title: Columns.of(history)}, options, title))
    if path is not None:
        figure.savefig(path, dpi=DOTS_PER_INCH)
    return figure


def figure_of(chart: Chart) -> Any:
    """Draw a chart.

    Args:
        chart: what to draw.

    Returns:
        A ``matplotlib.figure.Figure``; notebooks show it after ``%matplotlib inline``.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    count = max(1, len(chart.panels))
    columns = min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    # Not through pyplot, which would keep the figure and choose a display.
    figure = require("matplotlib.figure", "plot").Figure(
        figsize=(5.4 * columns, 3.1 * rows + 0.5), layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, panel in zip(grid, chart.panels, strict=False):
        _panel(axes, panel, chart)
    for axes in grid[len(chart.panels) :]:
        axes.set_axis_off()
    if chart.title:
        figure.suptitle(_plain(chart.title), fontsize=13, color=_INK)
    if chart.runs:
        _legend_of_runs(figure, chart)
    return figure


def _panel(axes: Any, panel: Panel, chart: Chart) -> None:
    drawn = [(line, line.points(_PIXELS)) for line in panel.lines]
    x = Axis.of_steps(value for _, points in drawn for value in points.x)
    y = Axis.over((value for _, points in drawn for value in points.y), log=panel.log)
    for line, points in drawn:
        _line(axes, line, points)
    # A little room at the end, so that the last markers are not cut.
    axes.set(xlim=(x.low, x.high + 0.012 * (x.high - x.low)), xlabel=_plain(chart.x))
    if y.log:
        axes.set_yscale("log")
        axes.minorticks_off()
    axes.set_ylim(y.low, y.high)
    for axis, ticks in ((axes.xaxis, x.ticks(6, chart.whole)), (axes.yaxis, y.ticks(5))):
        axis.set_ticks([value for value, _ in ticks], [text for _, text in ticks])
    axes.set_title(_plain(panel.title), fontsize=11, loc="left", color=_INK)
    axes.tick_params(labelsize=9, colors=_INK, length=3)
    axes.xaxis.label.set(fontsize=9, color=_QUIET)
    axes.grid(color=_RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_QUIET)
    if not chart.runs and len(panel.lines) > 1:
        axes.legend(fontsize=9, frameon=False, labelcolor=_INK)


def _line(axes: Any, line: Line, points: Points) -> None:
    color = LIGHT[line.color % len(LIGHT)]
    style = (0, DASHES[line.dash]) if DASHES[line.dash] else "solid"
    few = len(points.x) <= (_FEW if line.dash else 1)
    label = _plain(line.label)
    if points.mean:
        axes.plot(points.x, points.y, color=color, alpha=0.28, linewidth=0.8, zorder=1.5)
        axes.plot(points.x, points.mean, color=color, linewidth=1.6, label=label)
    else:
        marker = "." if few or line.smooth else None
        axes.plot(
            points.x,
            points.y,
            color=color,
            linestyle=style,
            linewidth=1.5,
            marker=marker,
            label=label,
        )
    # A cross at the upper edge marks a value that has no place on the axis.
    missing = [line.x[index] for index in undrawable(line.y, _PIXELS)]
    if missing:
        edge = axes.get_xaxis_transform()
        axes.plot(missing, [1.0] * len(missing), "x", color=color, transform=edge, clip_on=False)


def _legend_of_runs(figure: Any, chart: Chart) -> None:
    """Explain the colours of runs and the styles of evaluation sets, once for all panels."""
    line = require("matplotlib.lines", "plot").Line2D
    handles = [
        line([], [], color=LIGHT[run % len(LIGHT)], label=_plain(label))
        for run, label in enumerate(chart.runs)
    ]
    if len(chart.styles) > 1:
        handles += [
            line([], [], color=_QUIET, linestyle=(0, DASHES[dash] or (1, 0)), label=_plain(name))
            for name, dash in chart.styles
        ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9, frameon=False)


def _plain(text: str) -> str:
    """Escape ``$``, which matplotlib would read as mathematics."""
    return "".join(char if char.isprintable() else "�" for char in text).replace("$", r"\$")
