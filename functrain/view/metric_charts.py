"""Charts of metrics in a notebook: one for each metric, with its evaluations in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from functrain.plotting.decimation import decimated, drawable
from functrain.plotting.smoothing import smoothed
from functrain.view.blocks import block
from functrain.view.inline_chart import PIXELS, Curve, chart, legend
from functrain.view.markup import Markup, element

Series = tuple[list[int], list[float]]
# A series of so many values is drawn faintly, with its moving mean in front.
_MANY = 50
# Values that differ by more than this factor get a logarithmic axis.
_MAGNITUDES = 20


def metric_charts(metrics: Mapping[str, Mapping[str, Series]]) -> Markup:
    """Return the charts of metrics.

    Args:
        metrics: by name of a metric its series (steps and values) by label.

    Example:
        >>> series = {"loss": ([1, 2], [1.0, 0.5]), "eval/loss": ([2], [0.7])}
        >>> shown = metric_charts({"loss": series})
        >>> shown.count("<svg"), "eval/loss" in shown
        (1, True)
    """
    # A learning rate has no noise to smooth.
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
    """Return a series, and its moving mean if it is long and noisy."""
    many = len(values) >= _MANY
    yield Curve(label, steps, values, faint=many and noisy, color=color, dots=not many)
    if many and noisy:
        kept = decimated(values, PIXELS)
        means = smoothed(values, at=kept)
        yield Curve(label, [steps[index] for index in kept], means, color=color)
