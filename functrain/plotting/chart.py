"""A chart: panels of lines, before they are drawn as a figure or on a page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import attrs
import numpy as np

from functrain.errors.validators import number, one_of
from functrain.metrics.mode import mode_of_name
from functrain.plotting.colors import LINE_STYLES, THEMES
from functrain.plotting.columns import LABELS, Columns, x_values
from functrain.plotting.metric_names import (
    TITLES,
    choose_metrics,
    evaluation_set,
    is_evaluation,
    order,
    panel_of,
    spans_magnitudes,
)
from functrain.plotting.points import decimate, find_undrawable, is_drawable, smooth_values

# Smaller positive values are not drawn on a logarithmic axis.
LEAST_LOGARITHM = 1e-300


@attrs.frozen
class Options:
    """How to draw curves.

    Args:
        metrics: globs of metric names; by default the metrics that people usually look at.
        x: ``step``, ``epoch``, ``samples`` or ``time``.
        smooth: training metrics are smoothed over this share of them, from 0 (not) to below 1.
        log: whether values are logarithmic; by default where that shows more.
        theme: ``light`` or ``dark``, the paper of a figure; pages take the reader's.

    Raises:
        ConfigurationError: ``x``, ``smooth`` or ``theme`` has another value.
    """

    metrics: tuple[str, ...] = attrs.field(default=(), converter=tuple[str, ...])
    x: str = attrs.field(default="step", validator=one_of(*LABELS))
    smooth: float = attrs.field(default=0.05, validator=number(minimum=0, below=1))
    log: bool | None = None
    theme: str = attrs.field(default="light", validator=one_of(*THEMES))


@attrs.frozen(eq=False)
class Line:
    """One metric of one run.

    Attributes:
        label: of the metric, or of the run if there are several.
        color: index of its colour.
        dash: index of its line style: 0 for training, others for evaluation sets.
        y: values; they may be NaN or infinite.
        smooth: width of the smoothing window as a share of the values; 0 draws only the values.
        band: the quartiles of members of a population, one for each value; empty of other runs.
    """

    label: str
    metric: str
    color: int
    dash: int
    x: np.ndarray
    y: Sequence[float]
    smooth: float = 0.0
    band: tuple[Sequence[float], ...] = ()

    def points(self, pixels: int, log: bool) -> Points:
        """Return few enough points for a width, spikes included; NaN for those without a place."""
        kept = decimate(self.y, pixels)

        def place(values: Sequence[float], smooth: float = 0.0) -> np.ndarray:
            some = smooth_values(values, smooth, kept) if smooth else np.asarray(values)[kept]
            shown = is_drawable(some) & (np.asarray(some) > (LEAST_LOGARITHM if log else -math.inf))
            return np.where(shown, some, math.nan)

        return Points(
            self.x[kept],
            place(self.y),
            place(self.y, self.smooth) if self.smooth else None,
            [place(side, self.smooth) for side in self.band],
        )

    def missing(self, pixels: int) -> list[int]:
        """Return which values have no place on an axis, at most one for each pixel."""
        return find_undrawable(self.y, pixels)


@attrs.frozen(eq=False)
class Points:
    """The drawn points of a line, their smoothed means, and the band around them."""

    x: np.ndarray
    y: np.ndarray
    mean: np.ndarray | None
    band: list[np.ndarray]

    def alone(self) -> list[int]:
        """Return which points no line reaches, because both neighbours have no place."""
        seen = np.pad(is_drawable(self.y), 1)
        return np.flatnonzero(seen[1:-1] & ~seen[:-2] & ~seen[2:]).tolist()


@attrs.frozen(eq=False)
class Panel:
    """Lines over the same axes."""

    title: str
    lines: tuple[Line, ...]
    log: bool

    def in_words(self, x: str) -> str:
        """Describe the panel for readers who cannot see it, with its first values out of place."""
        places = [
            f"{line.metric} is {line.y[index]} at {line.x[index]:g}"
            for line in self.lines
            for index in line.missing(pixels=10)
        ]
        return "; ".join([f"{self.title} over {x}", *places])


@attrs.frozen(eq=False)
class Chart:
    """All panels of one run or several.

    Attributes:
        title: over it all.
        panels: in order.
        x: label of the horizontal axis.
        whole: whether x values are whole numbers.
        runs: labels of the runs by index of their colour; empty for a single run, whose colours
            tell metrics apart.
        styles: the line style of each evaluation set, and of training.
        theme: ``light`` or ``dark``, the paper of a figure.
    """

    title: str
    panels: tuple[Panel, ...]
    x: str
    whole: bool = True
    runs: tuple[str, ...] = ()
    styles: Mapping[str, int] = attrs.field(factory=dict)
    theme: str = "light"


def chart_of(runs: Mapping[str, Columns], options: Options | None = None, title: str = "") -> Chart:
    """Arrange the metrics of runs, given by label, in panels.

    Raises:
        ConfigurationError: a pattern matches no metric of any run.
        LogError: a log has no x values in the unit of the horizontal axis.

    Example:
        >>> rows = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5, "eval/loss": 0.7}]
        >>> chart = chart_of({"first": Columns.of(rows)})
        >>> [(panel.title, [line.label for line in panel.lines]) for panel in chart.panels]
        [('loss', ['loss', 'eval/loss'])]
    """
    options = options or Options()
    names = list(dict.fromkeys(name for columns in runs.values() for name in columns.names()))
    by_panel: dict[str, list[str]] = {}
    for name in choose_metrics(names, options.metrics):
        by_panel.setdefault(panel_of(name, names), []).append(name)
    drawn = [name for metrics in by_panel.values() for name in metrics]
    sets = {name: evaluation_set(name) if is_evaluation(name, names) else "" for name in drawn}
    styles = _styles(list(dict.fromkeys(sets.values())))
    dashes = {name: styles[own] for name, own in sets.items()}
    x_of = {label: np.asarray(x_values(columns, options.x)) for label, columns in runs.items()}
    members = max(columns.members for columns in runs.values())
    panels = (
        _panel(name, list(_lines(by_panel[name], runs, x_of, dashes, options)), options, members)
        for name in sorted(by_panel, key=order)
    )
    return Chart(
        title=title,
        panels=tuple(panels),
        x=LABELS[options.x],
        whole=options.x in ("step", "samples"),
        runs=tuple(runs) if len(runs) > 1 else (),
        styles={name or "training": dash for name, dash in styles.items()},
        theme=options.theme,
    )


def _styles(sets: Sequence[str]) -> dict[str, int]:
    """Return the line style of each set: 0 for training, "", the others for evaluations in turn."""
    evaluations = [name for name in sets if name]
    count = len(LINE_STYLES) - 1
    return {name: 1 + evaluations.index(name) % count if name else 0 for name in sets}


def _lines(
    metrics: Sequence[str],
    runs: Mapping[str, Columns],
    x_of: Mapping[str, np.ndarray],
    dashes: Mapping[str, int],
    options: Options,
) -> Iterator[Line]:
    several = len(runs) > 1
    for run, (label, columns) in enumerate(runs.items()):
        for index, name in enumerate(metrics):
            if name not in columns.values:
                continue
            rows = columns.rows[name]
            noisy = dashes[name] == 0 and "/" not in name and name.partition(".")[0] != "lr"
            yield Line(
                label=label if several else name,
                metric=name,
                color=run if several else index,
                dash=dashes[name],
                x=x_of[label][rows],
                y=columns.values[name],
                smooth=options.smooth if noisy and len(rows) > 1 else 0.0,
                band=columns.bands.get(name, ()),
            )


def _panel(name: str, lines: list[Line], options: Options, members: int) -> Panel:
    metrics = {line.metric for line in lines}
    alone = metrics.pop() if len(metrics) == 1 else name
    title = TITLES.get(alone, alone)
    if any(line.band for line in lines):
        middle = "median" if mode_of_name(name) is None else "best"
        title = f"{title}: {middle} of {members} members, and quartiles"
    values = np.concatenate([line.y for line in lines])
    shown = values[is_drawable(values)]
    log = options.log
    if log is None:  # where values differ by more than a factor of 20, so that it shows more
        least = min(shown, default=0.0)
        log = bool(spans_magnitudes(name) and least > 0 and max(shown) > 20 * least)
    return Panel(title, tuple(lines), log and bool((shown > LEAST_LOGARITHM).any()))
