"""Charts in files; the end of the file name chooses the format."""

from __future__ import annotations

from pathlib import Path

from functrain.errors import ConfigurationError
from functrain.plotting import Chart
from functrain.plotting.curves import figure_of
from functrain.view.page import chart_page

FORMATS = (".png", ".svg", ".pdf", ".html")


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
        figure_of(chart, path)


def check_format(path: Path) -> None:
    """Check that a file name ends in a known format.

    Raises:
        ConfigurationError: it does not; the message lists the formats.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigurationError(f"{path}: expected a file name ending in {', '.join(FORMATS)}")
