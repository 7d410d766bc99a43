"""Curves in a file, whose name says the format, or as a figure."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from functrain.errors import ConfigurationError
from functrain.view.plotting.charts import Chart, chart_of
from functrain.view.plotting.columns import Columns
from functrain.view.plotting.options import Options
from functrain.view.plotting.page import chart_page
from functrain.view.plotting.picture import picture

if TYPE_CHECKING:
    from functrain.training.metrics_log import Row

FORMATS = (".png", ".svg", ".pdf", ".html")
_DOTS_PER_INCH = 140


def curves(
    history: Iterable[Row],
    path: str | Path | None = None,
    title: str = "",
    options: Options | None = None,
) -> Any:
    """Draw the curves of a run with matplotlib.

    Args:
        history: its rows.
        path: where to write the picture; by default it is not written.
        title: over the figure.
        options: what to draw.

    Returns:
        A ``matplotlib.figure.Figure``; notebooks show it after ``%matplotlib inline``.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ConfigurationError: an option names a metric that there is not.
    """
    figure = picture(chart_of({title: Columns.of(history)}, options, title))
    if path is not None:
        figure.savefig(path, dpi=_DOTS_PER_INCH)
    return figure


def draw(chart: Chart, path: Path, notes: tuple[str, ...] = ()) -> None:
    """Write a chart.

    Args:
        chart: what to draw.
        path: ``.html`` writes a page that needs nothing else; ``.png``, ``.svg`` and ``.pdf`` are
            matplotlib's.
        notes: what a page says above its curves.

    Raises:
        ConfigurationError: the name ends otherwise.
        MissingExtraError: matplotlib is needed and not installed.
    """
    check_format(path)
    if path.suffix.lower() == ".html":
        path.write_text(chart_page(chart, notes), "utf-8")
    else:
        picture(chart).savefig(path, dpi=_DOTS_PER_INCH)


def check_format(path: Path) -> None:
    """Refuse a file name whose ending says no format that can be written.

    Raises:
        ConfigurationError: names those that can.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigurationError(f"{path}: the name of the file ends in {', '.join(FORMATS)}")
