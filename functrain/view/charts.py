"""Charts as inline SVG, in the colours of the text around them."""

from __future__ import annotations

from functrain.errors import MissingExtraError
from functrain.plotting.chart import Chart
from functrain.view.blocks import Markup, element

_STYLE = (
    "display:block;width:100%;height:auto;stroke-linejoin:round;font-family:system-ui,sans-serif"
)


def charts(chart: Chart) -> list[Markup]:
    """Draw each panel of a chart as ``svg``; without matplotlib return how to install it.

    Example:
        >>> from functrain.plotting.chart import chart_of
        >>> from functrain.plotting.columns import Columns
        >>> rows = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": float("nan")}]
        >>> (svg,) = charts(chart_of({"": Columns.of(rows)}))
        >>> svg.startswith("<svg"), "loss is nan at 2" in svg
        (True, True)
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
            style=_STYLE,
        )
        for panel, (box, body) in zip(chart.panels, panels_of(chart), strict=True)
    ]


def titled(chart: Chart) -> Markup:
    """Draw the panels of a chart side by side, as many as fit, each under its title."""
    style = "display:inline-block;width:460px;max-width:100%;margin:.4em 1.5em 0 0"
    blocks = (
        element("div", element("b", panel.title), svg, style=style)
        for panel, svg in zip(chart.panels, charts(chart), strict=False)
    )
    return element("div", *blocks)
