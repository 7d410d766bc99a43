"""Curves of a run that is still going: one chart for each metric, evaluations in it too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from functrain.view.display.blocks import block
from functrain.view.display.curves import PIXELS, Curve, chart, legend
from functrain.view.plotting.decimation import decimated, drawable
from functrain.view.plotting.markup import Markup, element
from functrain.view.plotting.smoothing import smoothed

Series = tuple[list[int], list[float]]
# From so many values on their mean is drawn before them.
_MANY = 50
# What has changed by more than this factor is told better by its logarithm.
_MAGNITUDES = 20


def html(metrics: Mapping[str, Mapping[str, Series]]) -> Markup:
    """Charts for a notebook.

    Args:
        metrics: by name of a metric its series (steps and values) by label.

    Example:
        >>> shown = html({"loss": {"loss": ([1, 2], [1.0, 0.5]), "eval/loss": ([2], [0.7])}})
        >>> shown.count("<svg"), "eval/loss" in shown
        (1, True)
    """
    # A learning rate is what it is: there is no noise to be taken out.
    charts = (_chart(series, name != "lr") for name, series in metrics.items() if series)
    return block(*charts)


def _chart(series: Mapping[str, Series], noisy: bool) -> Markup:
    curves = [
        curve
        for color, (label, (steps, values)) in enumerate(series.items())
        for curve in _curves(label, steps, values, color, noisy)
    ]
    shown = [value for _, values in series.values() for value in values if drawable(value)]
    log = bool(shown) and 0 < min(shown) * _MAGNITUDES < max(shown)
    svg = chart(curves, "step", log)
    return element("div", legend(curves), svg, style="display:inline-block;margin-right:1em")


def _curves(
    label: str, steps: list[int], values: list[float], color: int, noisy: bool
) -> Iterator[Curve]:
    """A series, behind its mean if it is long and noisy."""
    many = len(values) >= _MANY
    yield Curve(label, steps, values, faint=many and noisy, color=color, dots=not many)
    if many and noisy:
        kept = decimated(values, PIXELS)
        means = smoothed(values, at=kept)
        yield Curve(label, [steps[index] for index in kept], means, color=color)
