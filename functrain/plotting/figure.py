"""The one drawer: charts as matplotlib figures, and panels as SVG for pages and notebooks.

Importing it needs matplotlib; other files import it when they draw.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from functrain.errors.optional import require
from functrain.errors.paths import expanded
from functrain.plotting.chart import LEAST_LOGARITHM, Chart, Line, Panel, Points
from functrain.plotting.colors import DASHES, INK, PAGE, THEMES, Theme

require("matplotlib", "plot")  # for its message about what to install

import matplotlib as mpl  # noqa: E402
from matplotlib import ticker  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402

_DOTS_PER_INCH, _IN_NOTEBOOKS = 140, 96
_COLUMNS, _LEGEND_COLUMNS, _PIXELS, _FEW = 2, 4, 1200, 60
_ROW = 0.19  # of a legend, in inches
# Of a panel in HTML: inches, letters in a row of its legend, points of all and of one line.
_PAGE_SIZE, _PAGE_LETTERS = (5.2, 2.4), 74
_PAGE_POINTS, _PAGE_LEAST, _PAGE_MOST = 10_000, 50, 450
# Equal charts are equal files: no time, no random names.
_REPEATABLE: Any = {"svg.hashsalt": "functrain", "svg.fonttype": "none"}
_NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}
# A page has ids and fonts of its own, and needs no more than a hundredth of a point.
_FOR_PAGES = [
    (re.compile(pattern), short)
    for pattern, short in (
        (r'(?<=<g) id="[^"]*"', ""),
        (r'style="font: ([\d.]+)px [^;"]*', r'style="font-size: \1px'),
        (r"; font-family: [^;\"]*", ""),
        (r"(?<=\d)(\.\d\d)\d+", r"\1"),
        (INK, "currentColor"),
        (r"xlink:href=", "href="),
        (r"\s*\n\s*", " "),
    )
]


class Picture(Figure):
    """A figure that a notebook shows without ``%matplotlib inline``.

    It is not made through pyplot, which would keep it and choose a display.
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, float]]:
        width, height = (72 * inches for inches in self.get_size_inches())
        return self._written("png", _IN_NOTEBOOKS), {"width": width, "height": height}

    def write(self, path: str | Path) -> None:
        """Write the picture to a file; the end of its name chooses the format."""
        place = expanded(path)
        place.write_bytes(self._written(place.suffix.lower().removeprefix(".")))

    def _written(self, kind: str, dpi: int = _DOTS_PER_INCH) -> bytes:
        file = io.BytesIO()
        dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
        with mpl.rc_context(_REPEATABLE):
            self.savefig(file, format=kind, dpi=dpi, metadata=dates.get(kind))
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
    handles = _handles_of_runs(chart, theme)
    below = _ROW * math.ceil(len(handles) / _LEGEND_COLUMNS)
    figure = blank((5.4 * columns, 3.1 * rows + 0.3 + below), theme)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, panel in zip(grid, chart.panels, strict=False):
        _panel(axes, panel, chart, theme, _PIXELS)
        axes.set_title(_plain(panel.title), fontsize=11, loc="left", color=theme.ink)
        if not chart.runs and len(panel.lines) > 1:
            _legend(axes, "best", _handles(panel, theme), theme)
    for axes in grid[len(chart.panels) :]:
        axes.set_axis_off()
    if chart.title:
        figure.suptitle(_plain(chart.title), fontsize=13, color=theme.ink)
    if handles:
        _legend(figure, "outside lower center", handles, theme, _LEGEND_COLUMNS)
    return figure


def panels_of(chart: Chart) -> list[tuple[str, str]]:
    """Draw each panel for HTML, in the colours of the page around it.

    Return for each panel the ``viewBox`` and the content of an ``svg`` element.
    """
    count = sum(len(panel.lines) for panel in chart.panels)
    pixels = max(_PAGE_LEAST, min(_PAGE_MOST, _PAGE_POINTS // max(1, count)))
    return [_panel_svg(panel, chart, pixels) for panel in chart.panels]


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


def _panel_svg(panel: Panel, chart: Chart, pixels: int) -> tuple[str, str]:
    handles = _handles_of_runs(chart, PAGE) or _handles(panel, PAGE)
    lengths = [len(str(handle.get_label())) + 8 for handle in handles]
    fitting = len(handles) if sum(lengths) < _PAGE_LETTERS else _PAGE_LETTERS // max(lengths) or 1
    width, height = _PAGE_SIZE
    above = _ROW * math.ceil(len(handles) / fitting) if len(handles) > 1 else 0
    figure = blank((width, height + above), PAGE, pad=0.04)
    _panel(axes_of(figure, PAGE), panel, chart, PAGE, pixels)
    if above:
        _legend(figure, "outside upper left", handles, PAGE, fitting)
    file = io.BytesIO()
    with mpl.rc_context(_REPEATABLE):
        figure.savefig(file, format="svg", metadata=_NO_METADATA)
    svg = file.getvalue().decode()
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r">\s+<", "><", body)
    body = re.sub(r"<[^>]*>", _for_page, body)  # text between tags stays as it is
    return f"0 0 {72 * width:g} {72 * (height + above):g}", body


def _for_page(tag: re.Match[str]) -> str:
    text = tag[0]
    for pattern, short in _FOR_PAGES:
        text = pattern.sub(short, text)
    return text


def _panel(axes: Any, panel: Panel, chart: Chart, theme: Theme, pixels: int) -> None:
    _style(axes, theme)
    above = LEAST_LOGARITHM if panel.log else -math.inf
    points = [line.points(pixels, above) for line in panel.lines]
    axes.set_yscale("log" if panel.log else "linear")
    drawn = (y for each in points for values in (each.y, *each.band) for y in values)
    axes.set_ylim(_limits([y for y in drawn if y == y], panel.log))
    trains = any(not line.dash for line in panel.lines)
    for line, each in zip(panel.lines, points, strict=True):
        if each.band and (not line.dash or not trains):  # of an evaluation they would lie upon them
            _band(axes, line, each, theme)
        _line(axes, line, each, theme, pixels)
    low, high = axes.dataLim.intervalx
    if 0 <= low <= 0.2 * high or low == high > 0:
        low = 0.0
    if math.isfinite(high - low):
        axes.set_xlim(low, high if high > low else low + 1)
    _ticks(axes, panel.log, chart.whole)
    axes.set_xlabel(_plain(chart.x))


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


def _line(axes: Any, line: Line, points: Points, theme: Theme, pixels: int) -> None:
    style = {"color": theme.lines[line.color % len(theme.lines)], "clip_on": False}
    if points.mean:
        axes.plot(points.x, points.y, alpha=0.3, linewidth=0.8, zorder=1.5, **style)
        axes.plot(points.x, points.mean, linewidth=1.6, label=_plain(line.label), **style)
    else:
        few = len(points.x) <= (_FEW if line.dash else 1)
        marks = range(len(points.x)) if few else points.alone()
        axes.plot(
            points.x,
            points.y,
            linestyle=(0, DASHES[line.dash]) if DASHES[line.dash] else "solid",
            linewidth=1.5,
            marker=".",
            markevery=list(marks),
            label=_plain(line.label),
            **style,
        )
    # A cross at the upper edge marks a value that has no place on the axis.
    missing = [line.x[index] for index in line.missing(pixels)]
    if missing:
        edge = axes.get_xaxis_transform()
        axes.plot(missing, [1.0] * len(missing), "x", transform=edge, **style)


def _band(axes: Any, line: Line, points: Points, theme: Theme) -> None:
    color = theme.lines[line.color % len(theme.lines)]
    axes.fill_between(points.x, *points.band, alpha=0.2, linewidth=0, color=color, clip_on=False)


def _legend(place: Any, where: str, handles: list[Line2D], theme: Theme, columns: int = 1) -> None:
    style = {"fontsize": 9, "frameon": False, "labelcolor": theme.ink, "ncols": columns}
    place.legend(handles=handles, loc=where, **style)


def _handles(panel: Panel, theme: Theme) -> list[Line2D]:
    """Return a sample of each line of a panel."""
    return [_sample(line.label, theme.lines, line.color, line.dash) for line in panel.lines]


def _handles_of_runs(chart: Chart, theme: Theme) -> list[Line2D]:
    """Explain the colours of several runs, and the styles of their evaluation sets."""
    runs = [_sample(label, theme.lines, run) for run, label in enumerate(chart.runs)]
    styles = chart.styles if len(chart.styles) > 1 else ()
    return [*runs, *(_sample(name, (theme.quiet,), 0, dash) for name, dash in styles)]


def _sample(label: str, colors: Sequence[Any], color: int, dash: int = 0) -> Line2D:
    style: Any = (0, DASHES[dash]) if DASHES[dash] else "solid"
    return Line2D([], [], color=colors[color % len(colors)], linestyle=style, label=_plain(label))


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
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return f"{value:.{digits}g}"
    return f"{float(mantissa):.{digits}g}e{int(power)}"


def _plain(text: str) -> str:
    """Escape ``$``, which matplotlib would read as mathematics."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text).replace("$", r"\$")
