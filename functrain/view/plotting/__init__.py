"""Curves of runs: loss, evaluation, learning rate and gradient norm, as pictures and as pages."""

from functrain.view.plotting.charts import Chart, chart_of
from functrain.view.plotting.columns import Columns
from functrain.view.plotting.drawing import curves, draw
from functrain.view.plotting.options import Options
from functrain.view.plotting.smoothing import smoothed

__all__ = ["Chart", "Columns", "Options", "chart_of", "curves", "draw", "smoothed"]
