"""Panels as short SVG, in the colours of the page around them."""

from __future__ import annotations

import math
import re

from functrain.plotting.chart import Chart, Panel
from functrain.plotting.colors import INK, PAGE
from functrain.plotting.figure import (
    LEGEND_ROW,
    axes_of,
    blank,
    draw_legend,
    draw_panel,
    handles_of_lines,
    handles_of_runs,
)

# Of a panel: inches, letters in a row of its legend, points of all and of one line.
_SIZE, _LETTERS = (5.2, 2.4), 74
_POINTS, _LEAST, _MOST = 10_000, 50, 450
_NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}
# A page has ids and fonts of its own, and needs no more than a hundredth of a point.
_SHORTER = [
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


def panels_of(chart: Chart) -> list[tuple[str, str]]:
    """Return the ``viewBox`` and the content of an ``svg`` element for each panel."""
    count = sum(len(panel.lines) for panel in chart.panels)
    pixels = max(_LEAST, min(_MOST, _POINTS // max(1, count)))
    return [_panel(panel, chart, pixels) for panel in chart.panels]


def _panel(panel: Panel, chart: Chart, pixels: int) -> tuple[str, str]:
    handles = handles_of_runs(chart, PAGE) or handles_of_lines(panel, PAGE)
    lengths = [len(str(handle.get_label())) + 8 for handle in handles]
    fitting = len(handles) if sum(lengths) < _LETTERS else _LETTERS // max(lengths) or 1
    width, height = _SIZE
    above = LEGEND_ROW * math.ceil(len(handles) / fitting) if len(handles) > 1 else 0
    picture = blank((width, height + above), PAGE, pad=0.04)
    draw_panel(axes_of(picture, PAGE), panel, chart, PAGE, pixels)
    if above:
        draw_legend(picture, "outside upper left", handles, PAGE, fitting)
    svg = picture.encode("svg", metadata=_NO_METADATA).decode()
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r">\s+<", "><", body)
    body = re.sub(r"<[^>]*>", _shorten, body)  # text between tags stays as it is
    return f"0 0 {72 * width:g} {72 * (height + above):g}", body


def _shorten(tag: re.Match[str]) -> str:
    text = tag[0]
    for pattern, short in _SHORTER:
        text = pattern.sub(short, text)
    return text
