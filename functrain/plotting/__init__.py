"""Rows of metrics as figures and tables: curves of a run, a comparison of runs, and a schedule.

Begin with ``chart.py``. Rows of metrics become ``columns``; a ``chart`` arranges them in panels of
lines, by ``metric_names``. A ``figure`` draws the chart with matplotlib, and ``page_svg`` makes
SVG of it for the pages of :mod:`functrain.view`; nothing else in functrain draws curves.
``curves`` does it all in one call. A ``table`` shows the first and last rows as text.
"""

from functrain.plotting.chart import Options
from functrain.plotting.curves import compare, curves, schedule

__all__ = ["Options", "compare", "curves", "schedule"]
