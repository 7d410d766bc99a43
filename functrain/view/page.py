"""A self-contained HTML page: curves as SVG, one style sheet, no script; and charts in files."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from functrain.errors import ConfigurationError
from functrain.plotting.chart import Chart
from functrain.plotting.curves import FORMATS
from functrain.plotting.curves import draw as draw_picture
from functrain.view.blocks import Markup, element
from functrain.view.charts import charts

# No network and no script, in case a name smuggles one into the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_FORMATS = (*FORMATS, ".html")


def page(title: str, *body: object) -> str:
    """Return a whole document."""
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
    """Return a document with one chart."""
    lines = [element("p", note, class_="quiet") for note in notes]
    return page(chart.title, element("h1", chart.title), *lines, chart_html(chart))


def draw(chart: Chart, path: Path, notes: tuple[str, ...] = ()) -> None:
    """Write a chart.

    Args:
        chart: what to draw.
        path: ``.html`` writes a self-contained page, ``.png``, ``.svg`` and ``.pdf`` a picture.
        notes: lines above the curves of a page.

    Raises:
        ConfigurationError: the name has another ending.
        MissingExtraError: matplotlib is not installed.
    """
    check_format(path)
    if path.suffix.lower() == ".html":
        path.write_text(chart_page(chart, notes), "utf-8")
    else:
        draw_picture(chart, path)


def check_format(path: Path) -> None:
    """Check that a file name ends in a known format."""
    if path.suffix.lower() not in _FORMATS:
        raise ConfigurationError(f"{path}: expected a file name ending in {', '.join(_FORMATS)}")


@cache
def _style() -> str:
    return files("functrain.view").joinpath("page.css").read_text("utf-8")
