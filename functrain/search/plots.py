"""Plots of a search by Optuna: history, the value over each parameter, parallel coordinates."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from functrain.errors.optional import require
from functrain.search.report import ranked

_PLOTS = {
    "history.png": "plot_optimization_history",
    "slices.png": "plot_slice",
    "parallel.png": "plot_parallel_coordinate",
}


def draw(study: Any, directory: Path, metric: str) -> list[Path]:
    """Write all plots of a study.

    Args:
        study: an ``optuna.Study``.
        directory: the directory for ``history.png``, ``slices.png`` and ``parallel.png``.
        metric: the name of the metric.

    Returns:
        The files, none while no trial is complete.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    values = [row.value or 0.0 for row in ranked(study)]
    if not values:
        return []
    pyplot = require("matplotlib.pyplot", "plot")
    optuna = require("optuna.visualization.matplotlib", "search")
    width = 2.5 * (1 + len({name for trial in study.trials for name in trial.params}))
    for name, plot in _PLOTS.items():
        # Optuna draws through pyplot and in a style of its own; both stay as they were.
        with warnings.catch_warnings(), pyplot.ioff(), pyplot.style.context("default"):
            warnings.filterwarnings("ignore", message=".*xperimental.*|.*identical low and high")
            panels = _panels(getattr(optuna, plot)(study, target_name=metric))
            figure = panels[0].figure
            figure.set_size_inches(max(7.0, width), 4.2)
            if name != "parallel.png" and 0 < 30 * min(values) < max(values):
                for axes in panels:
                    axes.set_yscale("log")
            try:
                figure.savefig(directory / name, dpi=130, bbox_inches="tight")
            finally:
                pyplot.close(figure)
    return [directory / name for name in _PLOTS]


def _panels(axes: Any) -> list[Any]:
    """Return the axes of a plot, which for a single parameter are not in an array."""
    return list(getattr(axes, "flat", [axes]))
