"""Plots of a search: its history, the value over each parameter, and parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from functrain.errors.optional import require
from functrain.search.report import Row, ranked, rows

_BLUE, _ORANGE, _GREY = "#1f5fa8", "#d1622b", "#7a7a7a"
_PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
_COLUMNS = 3


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
    best = ranked(study)
    if not best:
        return []
    figures = {
        "history.png": history(rows(study), best, metric),
        "slices.png": slices(study, best, metric),
        "parallel.png": parallel(study, best, metric),
    }
    for name, figure in figures.items():
        figure.savefig(directory / name, dpi=130)
    return [directory / name for name in figures]


def history(trials: Sequence[Row], best: Sequence[Row], metric: str) -> Any:
    """Draw the value of each trial, and the best so far."""
    figure, (axes,) = _figure(7.5, 4.2, 1, 1)
    finished = sorted(best, key=lambda row: row.number)
    spreads = [row.std or 0.0 for row in finished]
    bars: dict[str, Any] = {"yerr": spreads, "elinewidth": 0.8} if any(spreads) else {}
    label = "complete (± std over seeds)" if bars else "complete"
    axes.errorbar(*_line(finished), fmt="o", markersize=4.5, color=_BLUE, label=label, **bars)
    # Extend the line to the last trial, even if that one is not complete.
    better = min if _value(best[0]) <= _value(best[-1]) else max
    record = [*accumulate(map(_value, finished), better), _value(best[0])]
    numbers = [*(row.number for row in finished), trials[-1].number]
    axes.step(numbers, record, where="post", color=_ORANGE, linewidth=1.2, label="best so far")
    pruned = _pruned(trials)
    if pruned:
        axes.scatter(*_line(pruned), marker="x", s=22, color=_GREY, label="pruned, last value")
    failed = [row.number for row in trials if row.state == "failed"]
    for number in failed:
        label = "failed" if number == failed[0] else ""
        axes.axvline(number, color=_GREY, alpha=0.5, linestyle=":", label=label)
    _scale(axes, [_value(row) for row in (*best, *pruned)])
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("trial")
    axes.set_ylabel(metric)
    axes.legend(fontsize=8, frameon=False)
    return figure


def slices(study: Any, best: Sequence[Row], metric: str) -> Any:
    """Draw the value over each parameter; later trials are darker, crosses are pruned trials."""
    ranges, pruned = _ranges(study), _pruned(rows(study))
    columns = min(_COLUMNS, math.ceil(math.sqrt(len(ranges))))
    lines = math.ceil(len(ranges) / columns)
    figure, panels = _figure(3.8 * columns, 3.0 * lines, lines, columns)
    for axes, (name, kind) in zip(panels, ranges.items(), strict=False):
        numbers = [row.number for row in best]
        shades = {"c": numbers, "cmap": "Blues", "vmin": -0.5 * max(numbers) - 1}
        axes.scatter(*_against(name, kind, best), s=30, ec=_BLUE, linewidths=0.6, **shades)
        axes.scatter(*_against(name, kind, pruned), s=22, marker="x", color=_GREY)
        _axis(axes, kind)
        _scale(axes, [_value(row) for row in (*best, *pruned)])
        axes.set_xlabel(name)
    for axes in panels[len(ranges) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel(metric)
    return figure


def parallel(study: Any, best: Sequence[Row], metric: str) -> Any:
    """Draw each complete trial as a line through its parameters; the best ones are dark."""
    ranges = _ranges(study)
    figure, (axes,) = _figure(1.9 * (len(ranges) + 1) + 1, 4.2, 1, 1)
    values = [_value(row) for row in best]
    for rank, row in reversed(list(enumerate(best))):
        heights = [_share(_value(row), min(values), max(values))]
        heights += [_height(kind, row.params[name]) for name, kind in ranges.items()]
        colour, alpha = (_ORANGE, 1.0) if rank == 0 else (_BLUE, max(0.2, 0.8 - rank / len(best)))
        axes.plot(range(len(heights)), heights, color=colour, alpha=alpha, linewidth=1.4)
    small = {"fontsize": 8, "zorder": 3}
    ends = [(0.0, f"{min(values):.4g}"), (1.0, f"{max(values):.4g}")]
    for place, labels in enumerate([ends, *map(_labels, ranges.values())]):
        axes.axvline(place, color=_GREY, linewidth=0.8)
        for height, label in labels:
            axes.annotate(label, (place + 0.03, height + 0.02), color=_GREY, bbox=_PAPER, **small)
    axes.set_xticks(range(len(ranges) + 1), [metric, *ranges], fontsize=9)
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.set_ylim(-0.05, 1.08)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


def _figure(width: float, height: float, lines: int, columns: int) -> tuple[Any, list[Any]]:
    figure = require("matplotlib.figure", "plot").Figure((width, height), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in panels:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _line(some: Sequence[Row]) -> tuple[list[int], list[float]]:
    return [row.number for row in some], [_value(row) for row in some]


def _against(name: str, kind: Any, some: Sequence[Row]) -> tuple[list[float], list[float]]:
    present = [row for row in some if name in row.params]
    return [_position(kind, row.params[name]) for row in present], [_value(row) for row in present]


def _pruned(trials: Sequence[Row]) -> list[Row]:
    return [row for row in trials if row.state == "pruned" and row.value is not None]


def _value(row: Row) -> float:
    return math.nan if row.value is None else row.value


def _scale(axes: Any, values: Sequence[float]) -> None:
    if min(values) > 0 and max(values) > 30 * min(values):
        axes.set_yscale("log")


# -- positions of parameters on an axis ------------------------------------------------------------


def _ranges(study: Any) -> dict[str, Any]:
    """Return the distribution of each parameter, in the order of the space."""
    found: dict[str, Any] = {}
    for trial in study.get_trials(deepcopy=False):
        found |= {name: kind for name, kind in trial.distributions.items() if name not in found}
    return found


def _position(kind: Any, value: Any) -> float:
    """Return a number on the axis of the parameter, for choices their index."""
    return float(kind.to_internal_repr(value))


def _height(kind: Any, value: Any) -> float:
    """Return the position as a fraction of the range of the parameter."""
    place = _position(kind, value)
    if hasattr(kind, "choices"):
        return _share(place, 0.0, len(kind.choices) - 1.0)
    if kind.log:
        return _share(math.log(place), math.log(kind.low), math.log(kind.high))
    return _share(place, kind.low, kind.high)


def _share(place: float, low: float, high: float) -> float:
    return 0.5 if high == low else (place - low) / (high - low)


def _labels(kind: Any) -> list[tuple[float, str]]:
    """Return the labels of the axis of a parameter, with their heights."""
    if hasattr(kind, "choices"):
        return [(_height(kind, choice), str(choice)) for choice in kind.choices]
    return [(0.0, f"{kind.low:g}"), (1.0, f"{kind.high:g}")]


def _axis(axes: Any, kind: Any) -> None:
    if hasattr(kind, "choices"):
        axes.set_xticks(range(len(kind.choices)), [str(choice) for choice in kind.choices])
        axes.set_xlim(-0.5, len(kind.choices) - 0.5)
        return
    low, high = float(kind.low), float(kind.high)
    if kind.log:
        axes.set_xscale("log")
        if high > 10 * low:
            axes.xaxis.set_minor_formatter(lambda value, place: "")
        axes.set_xlim(low * (low / high) ** 0.05, high * (high / low) ** 0.05)
    elif high > low:
        margin = 0.05 * (high - low)
        axes.set_xlim(low - margin, high + margin)
