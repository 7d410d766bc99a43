"""Curves of runs: loss, evaluation, learning rate and gradient norm, as pictures and as pages."""

from functrain.plotting.charts import Chart, chart_of
from functrain.plotting.columns import Columns
from functrain.plotting.drawing import curves, draw
from functrain.plotting.options import Options
from functrain.plotting.smoothing import smoothed

__all__ = ["Chart", "Columns", "Options", "chart_of", "curves", "draw", "smoothed"]
