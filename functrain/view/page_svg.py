"""A panel of a chart as SVG for a page, and the numbers to show under the pointer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from functrain.plotting.axis import Axis
from functrain.plotting.chart import Chart, Line, Panel, Points
from functrain.plotting.colors import DASHES, LIGHT
from functrain.plotting.decimation import undrawable
from functrain.view.markup import Markup, element
from functrain.view.plain_text import printable

# In units of the drawing, which the page scales.
WIDTH, HEIGHT = 520, 270
LEFT, RIGHT, TOP, BOTTOM = 58, 510, 14, 228
# Up to so many values are marked by small circles.
_FEW = 40


def panel_svg(panel: Panel, chart: Chart, pixels: int) -> tuple[Markup, dict[str, Any]]:
    """Draw a panel.

    Args:
        panel: what to draw.
        chart: of the panel.
        pixels: lines of more values than twice this are thinned out.

    Returns:
        (the ``svg`` element, the points for the page's script, to be written as JSON).
    """
    points = [line.points(pixels) for line in panel.lines]
    x = Axis.of_steps(value for each in points for value in each.x)
    y = Axis.over((value for each in points for value in each.y), log=panel.log)
    shapes = [
        _line(line, each, x, y) for line, each in zip(panel.lines, points, strict=True) if each.x
    ]
    svg = element(
        "svg",
        *_grid(x, y, chart),
        *shapes,
        element("line", class_="cursor", y1=TOP, y2=BOTTOM),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{panel.title} over {chart.x}",
    )
    return svg, {
        "x": [x.low, x.high],
        "y": [y.low, y.high],
        "log": y.log,
        "frame": [LEFT, RIGHT, TOP, BOTTOM],
        "lines": [_data(line, each) for line, each in zip(panel.lines, points, strict=True)],
    }


def key_of(line: Line) -> str:
    """Return the key of lines that are hidden together: their colour."""
    return str(line.color)


def _grid(x: Axis, y: Axis, chart: Chart) -> Iterator[Markup]:
    for value, text in y.ticks(5):
        height = _down(y, value)
        yield element("line", class_="grid", x1=LEFT, x2=RIGHT, y1=height, y2=height)
        yield element("text", text, class_="end", x=LEFT - 7, y=_short((height or 0) + 4))
    for value, text in x.ticks(6, chart.whole):
        across = _across(x, value)
        yield element("line", class_="tick", x1=across, x2=across, y1=BOTTOM, y2=BOTTOM + 4)
        yield element("text", text, class_="middle", x=across, y=BOTTOM + 19)
    yield element("line", class_="axis", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM)
    middle = (LEFT + RIGHT) / 2
    yield element("text", chart.x, class_="middle quiet", x=middle, y=BOTTOM + 37)


def _line(line: Line, points: Points, x: Axis, y: Axis) -> Markup:
    dashes = " ".join(map(str, DASHES[line.dash])) or None
    faint = "line faint" if points.mean else "line"
    parts = [
        element("path", class_=faint, d=_path(points.x, points.y, x, y), stroke_dasharray=dashes)
    ]
    if points.mean:
        parts.append(element("path", class_="line", d=_path(points.x, points.mean, x, y)))
    if line.dash and len(points.x) <= _FEW:
        parts += _circles(points, x, y)
    for index in undrawable(line.y, WIDTH):
        mark = f"M{_across(x, line.x[index])} {TOP - 9}m-3 0l6 6m0 -6l-6 6"
        title = element("title", f"{line.metric} is {line.y[index]} at {line.x[index]:g}")
        parts.append(element("g", title, element("path", class_="line", d=mark)))
    color = f"c{line.color % len(LIGHT)}"
    return element("g", *parts, class_=color, data_key=key_of(line))


def _circles(points: Points, x: Axis, y: Axis) -> Iterator[Markup]:
    for across, value in zip(points.x, points.y, strict=True):
        if (down := _down(y, value)) is not None:
            yield element("circle", cx=_across(x, across), cy=down, r=2.6)


def _path(xs: Sequence[float], ys: Sequence[float], x: Axis, y: Axis) -> str:
    """Return a path through the values; a value that cannot be drawn leaves a gap."""
    words, pen = [], "M"
    for across, value in zip(xs, ys, strict=True):
        down = _down(y, value)
        if down is None:
            pen = "M"
            continue
        # A line without length, between two gaps, becomes a dot by its round caps.
        words.append(f"{pen}{_across(x, across)} {down}{'h0' if pen == 'M' else ''}")
        pen = "L"
    return "".join(words)


def _across(axis: Axis, value: float) -> float | int | None:
    place = axis.place(value)
    return None if place is None else _short(LEFT + place * (RIGHT - LEFT))


def _down(axis: Axis, value: float) -> float | int | None:
    place = axis.place(value)
    # A mean can lie outside of the range of the thinned-out values.
    return None if place is None else _short(BOTTOM - min(1.0, max(0.0, place)) * (BOTTOM - TOP))


def _short(value: float) -> float | int:
    rounded = round(value, 1)
    return int(rounded) if rounded == int(rounded) else rounded


def _data(line: Line, points: Points) -> dict[str, Any]:
    label = line.label if line.label == line.metric else f"{line.label}: {line.metric}"
    return {
        "key": key_of(line),
        "label": printable(label, keep="\n"),
        "color": line.color % len(LIGHT),
        "x": _numbers(points.x, 9),
        "y": _numbers(points.y, 5),
    }


def _numbers(values: Iterable[float], digits: int) -> list[float | int | str]:
    """Return numbers in few digits; NaN and infinities as text, because JSON lacks them."""
    short = (float(f"{value:.{digits}g}") for value in values)
    return [
        (int(value) if value == int(value) and abs(value) < 1e15 else value)
        if math.isfinite(value)
        else str(value)
        for value in short
    ]
