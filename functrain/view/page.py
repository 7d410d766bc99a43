"""A self-contained HTML page: curves as SVG, one style sheet, one small script."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

import attrs
import orjson

from functrain.plotting.chart import Chart, Panel
from functrain.plotting.colors import DASHES, LIGHT
from functrain.view import page_svg
from functrain.view.markup import Markup, element, joined

# Points of all lines together, and of one line; more than the pixels of a panel cannot be seen.
_TOTAL, _LEAST, _MOST = 10_000, 50, page_svg.RIGHT - page_svg.LEFT


@attrs.frozen(eq=False)
class ChartHtml:
    """A chart as HTML, and the numbers that the script shows under the pointer."""

    body: Markup
    data: dict[str, Any]


def chart_html(chart: Chart, index: int = 0) -> ChartHtml:
    """Return a chart for a page.

    Args:
        chart: what to draw.
        index: its index among the charts of the page.
    """
    count = sum(len(panel.lines) for panel in chart.panels)
    pixels = max(_LEAST, min(_MOST, _TOTAL // max(1, count)))
    drawn = [page_svg.panel_svg(panel, chart, pixels) for panel in chart.panels]
    panels = [
        element("figure", element("h3", panel.title), _legend(panel, chart), body, class_="panel")
        for panel, (body, _) in zip(chart.panels, drawn, strict=True)
    ]
    body = element(
        "div",
        _runs(chart),
        element("div", *panels, class_="panels"),
        class_="chart",
        data_chart=index,
    )
    return ChartHtml(body, {"x": chart.x, "panels": [data for _, data in drawn]})


def page(title: str, *body: object, charts: tuple[ChartHtml, ...] = ()) -> str:
    """Return a whole document.

    Args:
        title: of the window.
        body: markup, or text, which is escaped.
        charts: those in the body, by their index.
    """
    script = _resource("page.js")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(_resource("page.css"))),
    )
    data = element(
        "script",
        _json([each.data for each in charts]),
        type="application/json",
        id="charts",
    )
    content = element("body", *body, data, element("script", Markup(script)))
    return f"<!doctype html>\n{element('html', head, content, lang='en')}\n"


def chart_page(chart: Chart, notes: tuple[str, ...] = ()) -> str:
    """Return a document with one chart.

    Args:
        chart: what to draw.
        notes: lines above it.
    """
    drawn = chart_html(chart)
    lines = [element("p", note, class_="quiet") for note in notes]
    return page(chart.title, element("h1", chart.title), *lines, drawn.body, charts=(drawn,))


def _policy(script: str) -> str:
    """Forbid the network and all other scripts, in case a name smuggles one into the page."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


@cache
def _resource(name: str) -> str:
    return files("functrain.view").joinpath(name).read_text("utf-8")


def _json(data: Any) -> Markup:
    """Return JSON without ``<``, so that nothing in it can end the ``script`` element."""
    return Markup(orjson.dumps(data).decode().replace("<", "\\u003c"))


def _runs(chart: Chart) -> Markup:
    """Return the legend of several runs: their colours, and the meaning of line styles."""
    if not chart.runs:
        return joined()
    buttons = [_button(label, run, 0) for run, label in enumerate(chart.runs)]
    styles = [element("span", _sample(dash), name) for name, dash in chart.styles]
    return element("div", *buttons, *(styles if len(styles) > 1 else ()), class_="legend")


def _legend(panel: Panel, chart: Chart) -> Markup:
    """Return the legend of one panel whose colours tell metrics apart."""
    if chart.runs:
        return joined()
    buttons = [_button(line.label, line.color, line.dash) for line in panel.lines]
    return element("div", *buttons, class_="legend") if len(buttons) > 1 else joined()


def _button(label: str, color: int, dash: int) -> Markup:
    sample = element("span", _sample(dash), class_=f"c{color % len(LIGHT)}")
    return element("button", sample, label, type="button", aria_pressed="true", data_key=color)


def _sample(dash: int) -> Markup:
    dashes = " ".join(map(str, DASHES[dash])) or None
    path = element("path", class_="line", d="M2 5H22", stroke_dasharray=dashes)
    return element("svg", path, viewBox="0 0 24 10", aria_hidden="true")
