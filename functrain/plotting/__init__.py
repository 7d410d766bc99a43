"""Rows of metrics as figures and tables: loss, evaluation, learning rate and gradient norm.

Begin with ``chart.py``. Rows of metrics become ``columns``; a ``chart`` arranges them in panels of
lines, by ``metric_names`` and ``x_values``; a ``figure`` draws the chart. A chart knows nothing of
matplotlib, so that :mod:`functrain.view` can draw the same chart on an HTML page. A ``table`` shows
the first and last rows as text.
"""

from functrain.plotting.chart import Chart, chart_of
from functrain.plotting.columns import Columns
from functrain.plotting.figure import curves, figure_of
from functrain.plotting.options import Options
from functrain.plotting.smoothing import smoothed

__all__ = ["Chart", "Columns", "Options", "chart_of", "curves", "figure_of", "smoothed"]
