"""Rows of metrics as figures and tables: loss, evaluation, learning rate and gradient norm.

Begin with ``chart.py``. Rows of metrics become ``columns``; a ``chart`` arranges them in panels of
lines, by ``metric_names``. A ``figure`` draws the chart with matplotlib, as a
picture or as SVG for the pages of :mod:`functrain.view`; nothing else in functrain draws curves.
``curves`` does it all in one call. A ``table`` shows the first and last rows as text.
"""

from functrain.plotting.chart import Chart, Options, chart_of
from functrain.plotting.columns import Columns
from functrain.plotting.curves import compare, curves, figure_of, schedule_curve
from functrain.plotting.points import smoothed

__all__ = [
    "Chart",
    "Columns",
    "Options",
    "chart_of",
    "compare",
    "curves",
    "figure_of",
    "schedule_curve",
    "smoothed",
]
