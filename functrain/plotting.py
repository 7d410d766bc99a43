"""Curves of a run: loss, evaluation, learning rate and gradient norm in one figure."""

from __future__ import annotations

import math
from itertools import accumulate
from pathlib import Path
from typing import Any

from functrain.extras import require
from functrain.history import History

_COLORS = ("#1f5fa8", "#d1622b", "#3a8f4d", "#8a4fa3", "#7a7a7a", "#b8952a")


def curves(history: History, path: str | Path | None = None, title: str = "") -> Any:
    """Draw the curves of a run.

    Args:
        history: its rows.
        path: where to write the picture; by default it is not written.
        title: over the figure.

    Returns:
        A ``matplotlib.figure.Figure``; notebooks show it.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = require("matplotlib.figure", "plot").Figure(figsize=(10, 6.4), layout="constrained")
    loss, measured, rate, norm = figure.subplots(2, 2).flat
    _loss(loss, history)
    _evaluations(measured, history)
    _line(rate, history, "lr", "learning rate", logarithmic=False)
    _line(norm, history, "grad_norm", "gradient norm", logarithmic=True)
    for axes in (loss, measured, rate, norm):
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    if path is not None:
        figure.savefig(path, dpi=130)
    return figure


def smoothed(values: list[float], share: float = 0.05) -> list[float]:
    """Means of what is finite in a centred window over a share of the values.

    Example:
        >>> smoothed([1.0, 2.0, 3.0, 4.0], share=0.5)
        [1.5, 2.0, 3.0, 3.5]
    """
    half, length = round(len(values) * share / 2), len(values)
    finite = [math.isfinite(value) for value in values]
    # Differences of running sums: the time does not depend on the window's width.
    counts = list(accumulate(finite, initial=0))
    kept = (value if good else 0.0 for value, good in zip(values, finite, strict=True))
    sums = list(accumulate(kept, initial=0.0))
    windows = [(max(0, at - half), min(length, at + half + 1)) for at in range(length)]
    return [
        (sums[end] - sums[begin]) / (counts[end] - counts[begin])
        if counts[end] > counts[begin]
        else math.nan
        for begin, end in windows
    ]


def _loss(axes: Any, history: History) -> None:
    steps, values = history.column("loss")
    axes.plot(steps, values, color=_COLORS[0], alpha=0.25, linewidth=0.8)
    axes.plot(steps, smoothed(values), color=_COLORS[0], label="training, smoothed")
    names = [n for n in history.names() if n.endswith("/loss") and not n.startswith("epoch/")]
    for color, name in zip(_COLORS[1:], names, strict=False):
        axes.plot(*history.column(name), color=color, marker=".", markersize=4, label=name)
    positive = [value for value in values if value > 0]
    if positive and max(positive) > 20 * min(positive):
        axes.set_yscale("log")
    axes.set_title("loss", fontsize=10)
    axes.legend(fontsize=8, frameon=False)


def _evaluations(axes: Any, history: History) -> None:
    names = [
        name
        for name in history.names()
        if "/" in name and not name.startswith("epoch/") and not name.endswith("/loss")
    ]
    for color, name in zip(_COLORS[1:], names, strict=False):
        steps, values = history.column(name)
        axes.plot(steps, values, color=color, marker=".", markersize=4, label=name)
    axes.set_title("evaluation", fontsize=10)
    if names:
        axes.legend(fontsize=8, frameon=False)
    else:
        axes.text(0.5, 0.5, "no metrics besides the loss", ha="center", transform=axes.transAxes)


def _line(axes: Any, history: History, name: str, title: str, logarithmic: bool) -> None:
    steps, values = history.column(name)
    axes.plot(steps, values, color=_COLORS[0], linewidth=0.9)
    if logarithmic and any(0 < value < math.inf for value in values):
        axes.set_yscale("log")
    axes.set_title(title, fontsize=10)
