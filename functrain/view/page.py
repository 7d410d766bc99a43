"""A self-contained HTML page: curves as SVG, one style sheet, no script."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from functrain.plotting import Chart
from functrain.view.charts import charts
from functrain.view.markup import Markup, element

# No network and no script, in case a name smuggles one into the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(title: str, *body: object) -> str:
    """Return a whole document.

    Args:
        title: of the window.
        body: markup, or text, which is escaped.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(_style())),
    )
    return f"<!doctype html>\n{element('html', head, element('body', *body), lang='en')}\n"


def chart_html(chart: Chart) -> Markup:
    """Return the panels of a chart, each under its title."""
    drawn = charts(chart)
    panels = (
        element("figure", element("h3", panel.title), svg)
        for panel, svg in zip(chart.panels, drawn, strict=False)
    )
    return element("div", *panels, class_="panels")


def chart_page(chart: Chart, notes: tuple[str, ...] = ()) -> str:
    """Return a document with one chart.

    Args:
        chart: what to draw.
        notes: lines above it.
    """
    lines = [element("p", note, class_="quiet") for note in notes]
    return page(chart.title, element("h1", chart.title), *lines, chart_html(chart))


@cache
def _style() -> str:
    return files("functrain.view").joinpath("page.css").read_text("utf-8")
