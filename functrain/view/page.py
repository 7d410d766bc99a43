"""Charts as inline SVG, and self-contained HTML pages: one style sheet, no script."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from functrain.errors import ConfigurationError, MissingExtraError
from functrain.plotting.chart import Chart
from functrain.plotting.curves import FORMATS
from functrain.plotting.curves import draw as draw_picture
from functrain.view.blocks import Markup, element

# No network and no script, in case a name smuggles one into the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_FORMATS = (*FORMATS, ".html")
_SVG = "display:block;width:100%;height:auto;stroke-linejoin:round;font-family:system-ui,sans-serif"
_BESIDE = "display:inline-block;width:460px;max-width:100%;margin:.4em 1.5em 0 0"


def charts(chart: Chart) -> list[Markup]:
    """Draw each panel of a chart as ``svg``, in the colours of the text around it.

    Without matplotlib, return how to install it.
    """
    try:
        from functrain.plotting.page_svg import panels_of
    except MissingExtraError as error:
        return [element("p", f"no curves: {error}")]
    return [
        element(
            "svg",
            element("title", panel.in_words(chart.x)),
            Markup(body),
            viewBox=box,
            role="img",
            style=_SVG,
        )
        for panel, (box, body) in zip(chart.panels, panels_of(chart), strict=True)
    ]


def titled(chart: Chart) -> Markup:
    """Draw the panels of a chart in a notebook side by side, each under its title."""
    pairs = zip(chart.panels, charts(chart), strict=False)
    panels = (element("div", element("b", each.title), svg, style=_BESIDE) for each, svg in pairs)
    return element("div", *panels)


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
    """Draw the panels of a chart on a page, each under its title."""
    pairs = zip(chart.panels, charts(chart), strict=False)
    panels = (element("figure", element("h3", each.title), svg) for each, svg in pairs)
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
