"""The one drawer: charts as matplotlib figures.

Importing it needs matplotlib; other files import it when they draw.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from functrain.errors.optional import require
from functrain.errors.paths import expanded
from functrain.plotting.chart import Chart, Line, Panel, Points
from functrain.plotting.colors import LINE_STYLES, THEMES, Theme

require("matplotlib", "plot")  # for its message about what to install

import matplotlib as mpl  # noqa: E402
from matplotlib import ticker  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402

_DOTS_PER_INCH, _IN_NOTEBOOKS = 140, 96
_COLUMNS, _LEGEND_COLUMNS, _PIXELS, _FEW = 2, 4, 1200, 60
LEGEND_ROW = 0.19  # in inches
# Equal charts are equal files: no time, no random names.
_REPEATABLE: Any = {"svg.hashsalt": "functrain", "svg.fonttype": "none"}
_NO_TIME = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


class Picture(Figure):
    """A figure that a notebook shows without ``%matplotlib inline``.

    It is not made through pyplot, which would keep it and choose a display.
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, float]]:
        width, height = (72 * inches for inches in self.get_size_inches())
        return self.encode("png", _IN_NOTEBOOKS), {"width": width, "height": height}

    def write(self, path: str | Path) -> None:
        """Write the picture to a file; the end of its name chooses the format."""
        place = expanded(path)
        place.write_bytes(self.encode(place.suffix.lower().removeprefix(".")))

    def encode(self, kind: str, dpi: int = _DOTS_PER_INCH, metadata: Any = None) -> bytes:
        """Return the bytes of a file of the picture."""
        file = io.BytesIO()
        with mpl.rc_context(_REPEATABLE):
            self.savefig(file, format=kind, dpi=dpi, metadata=metadata or _NO_TIME.get(kind))
        return file.getvalue()


class PictureAxes(Axes):
    """Axes that a notebook shows as the picture they are in."""

    def _repr_png_(self) -> tuple[bytes, dict[str, float]]:
        figure = self.get_figure(root=True)
        assert isinstance(figure, Picture), "these axes are made by axes_of, in a picture"
        return figure._repr_png_()


def figure_of(chart: Chart) -> Picture:
    """Draw a chart as a ``matplotlib.figure.Figure``, which notebooks show."""
    theme = THEMES[chart.theme]
    columns = min(_COLUMNS, max(1, len(chart.panels)))
    rows = math.ceil(max(1, len(chart.panels)) / columns)
    handles = handles_of_runs(chart, theme)
    below = LEGEND_ROW * math.ceil(len(handles) / _LEGEND_COLUMNS)
    figure = blank((5.4 * columns, 3.1 * rows + 0.3 + below), theme)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, panel in zip(grid, chart.panels, strict=False):
        draw_panel(axes, panel, chart, theme, _PIXELS)
        axes.set_title(_plain(panel.title), fontsize=11, loc="left", color=theme.ink)
        if not chart.runs and len(panel.lines) > 1:
            draw_legend(axes, "best", handles_of_lines(panel, theme), theme)
    for axes in grid[len(chart.panels) :]:
        axes.set_axis_off()
    if chart.title:
        figure.suptitle(_plain(chart.title), fontsize=13, color=theme.ink)
    if handles:
        draw_legend(figure, "outside lower center", handles, theme, _LEGEND_COLUMNS)
    return figure


def blank(size: tuple[float, float], theme: Theme, pad: float = 0.12) -> Picture:
    """Return a figure without axes; its size and the free space around axes are in inches."""
    layout = ConstrainedLayoutEngine(w_pad=pad, h_pad=pad)
    return Picture(size, facecolor=theme.paper, layout=layout)


def axes_of(figure: Picture, theme: Theme, x: str = "", y: str = "") -> PictureAxes:
    """Return the only axes of a figure, with labels."""
    axes = PictureAxes(figure, 111)
    figure.add_subplot(axes)
    _style(axes, theme)
    axes.set(xlabel=_plain(x), ylabel=_plain(y))
    return axes


def draw_panel(axes: Any, panel: Panel, chart: Chart, theme: Theme, pixels: int) -> None:
    """Draw the lines of a panel on axes of a width."""
    _style(axes, theme)
    points = [line.points(pixels, panel.log) for line in panel.lines]
    axes.set_yscale("log" if panel.log else "linear")
    drawn = (y for each in points for values in (each.y, *each.band) for y in values.tolist())
    axes.set_ylim(_limits([y for y in drawn if y == y], panel.log))
    trains = any(not line.dash for line in panel.lines)
    for line, each in zip(panel.lines, points, strict=True):
        color = theme.lines[line.color % len(theme.lines)]
        if each.band and (not line.dash or not trains):  # of an evaluation they would lie upon them
            axes.fill_between(
                each.x, *each.band, alpha=0.2, linewidth=0, color=color, clip_on=False
            )
        _draw_line(axes, line, each, color, pixels)
    low, high = axes.dataLim.intervalx
    if 0 <= low <= 0.2 * high or low == high > 0:
        low = 0.0
    if math.isfinite(high - low):
        axes.set_xlim(low, high if high > low else low + 1)
    _ticks(axes, panel.log, chart.whole)
    axes.set_xlabel(_plain(chart.x))


def _draw_line(axes: Any, line: Line, points: Points, color: Any, pixels: int) -> None:
    style = {"color": color, "clip_on": False}
    if points.mean is not None:
        axes.plot(points.x, points.y, alpha=0.3, linewidth=0.8, zorder=1.5, **style)
        axes.plot(points.x, points.mean, linewidth=1.6, label=_plain(line.label), **style)
    else:
        few = len(points.x) <= (_FEW if line.dash else 1)
        axes.plot(
            points.x,
            points.y,
            linestyle=LINE_STYLES[line.dash],
            linewidth=1.5,
            marker=".",
            markevery=list(range(len(points.x))) if few else points.alone(),
            label=_plain(line.label),
            **style,
        )
    # A cross at the upper edge marks a value that has no place on the axis.
    missing = [line.x[index] for index in line.missing(pixels)]
    if missing:
        edge = axes.get_xaxis_transform()
        axes.plot(missing, [1.0] * len(missing), "x", transform=edge, **style)


def _style(axes: Any, theme: Theme) -> None:
    axes.set_facecolor(theme.paper)
    axes.margins(x=0, y=0.05)
    axes.tick_params(labelsize=9, colors=theme.ink, length=3)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(fontsize=9, color=theme.quiet)
    axes.grid(color=theme.rule, linewidth=0.8, clip_on=False)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.quiet)


def _limits(values: list[float], log: bool) -> tuple[float, float]:
    """Return the ends of an axis that shows all values, with a little room."""
    places = [math.log10(value) for value in values] if log else values
    low, high = min(places, default=0.0), max(places, default=1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        half = 0.5 if log else abs(low) * 0.05 or 0.5
        low, high = low - half, high + half
    free = 0.05 * (high - low)
    low, high = low - free, high + free
    return (10 ** max(low, -307), 10 ** min(high, 307)) if log else (low, high)


def _ticks(axes: Any, log: bool, whole: bool) -> None:
    low, high = axes.get_ylim()
    steps = [1, 2, 2.5, 5, 10]
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=whole, steps=steps))
    if log:
        subs = (1,) if high > 300 * low else (1, 2, 5)
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=subs))
        axes.minorticks_off()
    else:
        axes.yaxis.set_major_locator(ticker.MaxNLocator(5, steps=steps))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_Numbers())


class _Numbers(ticker.Formatter):
    """Labels of ticks: SI prefixes for large numbers, powers of ten for tiny ones."""

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """Return the labels in as few digits as tell the ticks apart."""
        texts: list[str] = []
        for digits in (6, 9, 12, 17):
            texts = [number(value, digits) for value in values]
            if len(set(texts)) == len(texts):
                break
        return texts

    def __call__(self, x: float, pos: int | None = None) -> str:
        return number(x)


def number(value: float, digits: int = 6) -> str:
    """Return a number in few characters.

    Example:
        >>> [number(value) for value in (0.0, 250.0, 12_500.0, -2e6, 0.05, 3e-4, 1e15)]
        ['0', '250', '12.5k', '-2M', '0.05', '3e-4', '1e15']
    """
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if scale <= abs(value) < 1e15:
            return f"{value / scale:.{digits}g}{prefix}"
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return f"{value:.{digits}g}"
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    return f"{float(mantissa):.{digits}g}e{int(power)}"


def draw_legend(
    place: Any, where: str, handles: list[Line2D], theme: Theme, columns: int = 1
) -> None:
    """Explain lines by samples of them."""
    style = {"fontsize": 9, "frameon": False, "labelcolor": theme.ink, "ncols": columns}
    place.legend(handles=handles, loc=where, **style)


def handles_of_lines(panel: Panel, theme: Theme) -> list[Line2D]:
    """Return a sample of each line of a panel."""
    return [_sample(line.label, theme.lines, line.color, line.dash) for line in panel.lines]


def handles_of_runs(chart: Chart, theme: Theme) -> list[Line2D]:
    """Explain the colours of several runs, and the styles of their evaluation sets."""
    runs = [_sample(label, theme.lines, run) for run, label in enumerate(chart.runs)]
    styles = chart.styles if runs and len(chart.styles) > 1 else {}
    return [*runs, *(_sample(name, (theme.quiet,), 0, dash) for name, dash in styles.items())]


def _sample(label: str, colors: Sequence[Any], color: int, dash: int = 0) -> Line2D:
    style = {"color": colors[color % len(colors)], "linestyle": LINE_STYLES[dash]}
    return Line2D([], [], label=_plain(label), **style)


def _plain(text: str) -> str:
    """Escape ``$``, which matplotlib would read as mathematics."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text).replace("$", r"\$")
