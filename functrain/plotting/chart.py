"""A chart: panels of lines, before they are drawn as a figure or on a page."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence

import attrs

from functrain.errors.validators import number, one_of
from functrain.metrics.mode import mode_of_name
from functrain.plotting.colors import DASHES, THEMES
from functrain.plotting.columns import LABELS, Columns, x_values
from functrain.plotting.metric_names import (
    TITLES,
    chosen,
    evaluation_set,
    is_evaluation,
    order,
    panel_of,
    spans_magnitudes,
)
from functrain.plotting.points import decimated, drawable, smoothed, undrawable

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

    Example:
        >>> Options(metrics=("*loss",), x="epoch").smooth
        0.05
    """

    metrics: tuple[str, ...] = attrs.field(default=(), converter=tuple[str, ...])
    x: str = attrs.field(default="step", validator=one_of(*LABELS))
    smooth: float = attrs.field(default=0.05, validator=number(minimum=0, below=1))
    log: bool | None = None
    theme: str = attrs.field(default="light", validator=one_of(*THEMES))


@attrs.frozen(eq=False)
class Points:
    """The drawn points of a line, their smoothed means, and the band around them."""

    x: list[float]
    y: list[float]
    mean: list[float]
    band: tuple[list[float], ...] = ()

    def alone(self) -> list[int]:
        """Return which points no line reaches, because both neighbours have no place."""
        seen = [False, *map(drawable, self.y), False]
        return [at for at in range(len(self.y)) if seen[at : at + 3] == [False, True, False]]


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
    x: Sequence[float]
    y: Sequence[float]
    smooth: float = 0.0
    band: tuple[Sequence[float], ...] = ()

    def points(self, pixels: int, above: float = -math.inf) -> Points:
        """Return few enough points for a width, spikes included; NaN for those without a place."""
        kept = decimated(self.y, pixels)
        mean = self._smoothed(self.y, kept) if self.smooth else []
        band = [self._smoothed(side, kept) for side in self.band]
        y, mean, *sides = (
            [value if drawable(value) and value > above else math.nan for value in values]
            for values in ((self.y[index] for index in kept), mean, *band)
        )
        return Points([self.x[index] for index in kept], y, mean, tuple(sides))

    def _smoothed(self, values: Sequence[float], kept: list[int]) -> list[float]:
        return smoothed(values, self.smooth, kept) if self.smooth else [values[at] for at in kept]

    def missing(self, pixels: int) -> list[int]:
        """Return which values have no place on an axis, at most one for each pixel."""
        return undrawable(self.y, pixels)


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
        styles: names of the line styles in use, if colours tell runs apart.
        theme: ``light`` or ``dark``, the paper of a figure.
    """

    title: str
    panels: tuple[Panel, ...]
    x: str
    whole: bool = True
    runs: tuple[str, ...] = ()
    styles: tuple[tuple[str, int], ...] = ()
    theme: str = "light"


def chart_of(runs: Mapping[str, Columns], options: Options | None = None, title: str = "") -> Chart:
    """Arrange the metrics of runs in panels.

    Args:
        runs: columns by label; each has rows.
        options: what to draw.
        title: over it all.

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
    for name in chosen(names, options.metrics):
        by_panel.setdefault(panel_of(name, names), []).append(name)
    dashes = _dashes([name for members in by_panel.values() for name in members], names)
    x_of = {label: x_values(columns, options.x) for label, columns in runs.items()}
    panels = [
        _panel(
            panel,
            _lines(by_panel[panel], runs, x_of, dashes, options.smooth),
            options.log,
            max(columns.members for columns in runs.values()),
        )
        for panel in sorted(by_panel, key=order)
    ]
    several = len(runs) > 1
    return Chart(
        title=title,
        panels=tuple(panels),
        x=LABELS[options.x],
        whole=options.x in ("step", "samples"),
        runs=tuple(runs) if several else (),
        styles=_styles(dashes) if several else (),
        theme=options.theme,
    )


def _lines(
    members: Sequence[str],
    runs: Mapping[str, Columns],
    x_of: Mapping[str, array[float]],
    dashes: Mapping[str, int],
    smooth: float,
) -> list[Line]:
    several, lines = len(runs) > 1, []
    for run, (label, columns) in enumerate(runs.items()):
        for index, name in enumerate(members):
            if name not in columns.values:
                continue
            rows, x = columns.rows[name], x_of[label]
            noisy = dashes[name] == 0 and "/" not in name and name.partition(".")[0] != "lr"
            line = Line(
                label=label if several else name,
                metric=name,
                color=run if several else index,
                dash=dashes[name],
                x=x if len(rows) == len(x) else array("d", (x[row] for row in rows)),
                y=columns.values[name],
                smooth=smooth if noisy and len(rows) > 1 else 0.0,
                band=columns.bands.get(name, ()),
            )
            lines.append(line)
    return lines


def _panel(name: str, lines: list[Line], log: bool | None, members: int) -> Panel:
    metrics = {line.metric for line in lines}
    alone = next(iter(metrics)) if len(metrics) == 1 else name
    shown = [value for line in lines for value in line.y if drawable(value)]
    if log is None:  # where values differ by more than a factor of 20, so that it shows more
        least = min(shown, default=0.0)
        log = spans_magnitudes(name) and least > 0 and max(shown) > 20 * least
    has_logarithm = any(value > LEAST_LOGARITHM for value in shown)
    title = TITLES.get(alone, alone)
    if any(line.band for line in lines):
        middle = "median" if mode_of_name(name) is None else "best"
        title = f"{title}: {middle} of {members} members, and quartiles"
    return Panel(title, tuple(lines), log and has_logarithm)


def _dashes(metrics: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Return the line style of each metric: one for training, one for each evaluation set."""
    evaluations = [name for name in metrics if is_evaluation(name, names)]
    sets = list(dict.fromkeys(map(evaluation_set, evaluations)))
    styles = len(DASHES) - 1
    return {
        name: 1 + sets.index(evaluation_set(name)) % styles if name in evaluations else 0
        for name in metrics
    }


def _styles(dashes: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    named = {evaluation_set(name) if dash else "training": dash for name, dash in dashes.items()}
    return tuple(named.items())
