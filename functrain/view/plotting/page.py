"""A page of HTML that needs nothing else: curves as SVG, one style sheet, one small script."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

import attrs
import orjson

from functrain.view.plotting import svg
from functrain.view.plotting.charts import Chart, Panel
from functrain.view.plotting.colors import DASHES, LIGHT
from functrain.view.plotting.markup import Markup, element, joined

# All lines together are drawn in so many pixels, and none in more than there are.
_BUDGET, _LEAST, _MOST = 10_000, 50, svg.RIGHT - svg.LEFT


@attrs.frozen(eq=False)
class Figure:
    """A chart as HTML, and the numbers that the page's script shows under the pointer."""

    body: Markup
    data: dict[str, Any]


def figure(chart: Chart, index: int = 0) -> Figure:
    """A chart for a page.

    Args:
        chart: what to draw.
        index: its number among the figures that the page is given.
    """
    count = sum(len(panel.lines) for panel in chart.panels)
    pixels = max(_LEAST, min(_MOST, _BUDGET // max(1, count)))
    drawn = [svg.drawing(panel, chart, pixels) for panel in chart.panels]
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
    return Figure(body, {"x": chart.x, "panels": [data for _, data in drawn]})


def page(title: str, *body: object, figures: tuple[Figure, ...] = ()) -> str:
    """A whole document.

    Args:
        title: of the window.
        body: markup; what is not markup is escaped.
        figures: those that stand in the body, in order of their numbers.
    """
    script = _resource("script.js")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(_resource("style.css"))),
    )
    data = element(
        "script",
        _json([each.data for each in figures]),
        type="application/json",
        id="charts",
    )
    content = element("body", *body, data, element("script", Markup(script)))
    return f"<!doctype html>\n{element('html', head, content, lang='en')}\n"


def chart_page(chart: Chart, notes: tuple[str, ...] = ()) -> str:
    """A document with one chart.

    Args:
        chart: what to draw.
        notes: what is to be said above it.
    """
    drawn = figure(chart)
    said = [element("p", note, class_="quiet") for note in notes]
    return page(chart.title, element("h1", chart.title), *said, drawn.body, figures=(drawn,))


def _policy(script: str) -> str:
    """No network, and no script but this one, whatever may have come into the page."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


@cache
def _resource(name: str) -> str:
    return files("functrain.view.plotting").joinpath(name).read_text("utf-8")


def _json(data: Any) -> Markup:
    """JSON that a ``script`` element can hold: nothing in it ends the element."""
    return Markup(orjson.dumps(data).decode().replace("<", "\\u003c"))


def _runs(chart: Chart) -> Markup:
    """Legend of several runs: a colour each, and what the line styles mean."""
    if not chart.runs:
        return joined()
    buttons = [_button(label, run, 0) for run, label in enumerate(chart.runs)]
    styles = [element("span", _sample(dash), name) for name, dash in chart.styles]
    return element("div", *buttons, *(styles if len(styles) > 1 else ()), class_="legend")


def _legend(panel: Panel, chart: Chart) -> Markup:
    """Legend of one panel, where colours tell metrics."""
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
