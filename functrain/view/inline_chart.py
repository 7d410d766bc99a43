"""A small line chart as inline SVG, in the colours of the page around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from functrain.plotting.axis import Axis, number
from functrain.plotting.decimation import decimated, undrawable
from functrain.view.blocks import COLORS
from functrain.view.markup import Markup, element

_WIDTH, _HEIGHT = 460, 160
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 450, 10, 130
# A long line is thinned out to about this many points.
PIXELS = 400
_FEW = 30


@attrs.frozen(eq=False)
class Curve:
    """A line of a chart.

    Attributes:
        label: its name in the legend.
        x: x values, in order.
        y: values; those that are not finite are marked at the top.
        faint: whether it is the noise behind a smoothed curve of the same colour.
        color: index of its colour.
        dots: whether to mark its values if they are few.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False
    color: int = 0
    dots: bool = False


def chart(curves: Sequence[Curve], x_label: str, log: bool = False) -> Markup:
    """Draw lines over the same axes.

    Args:
        curves: at least one, each with a value.
        x_label: label of the horizontal axis.
        log: whether to use a logarithmic axis, if any value is positive.

    Example:
        >>> svg = chart([Curve("lr", [0, 1, 2], [0.0, float("nan"), 1.0])], "step")
        >>> svg.startswith("<svg"), "lr is nan at 1" in svg
        (True, True)
    """
    kept = [decimated(curve.y, PIXELS) for curve in curves]
    x = Axis.of_steps(value for curve in curves for value in (curve.x[0], curve.x[-1]))
    shown = (curve.y[i] for curve, indices in zip(curves, kept, strict=True) for i in indices)
    y = Axis.over(shown, log=log, margin=0.06)
    lines = [_line(*pair, x, y) for pair in zip(curves, kept, strict=True)]
    return element(
        "svg",
        element("title", ", ".join(dict.fromkeys(curve.label for curve in curves))),
        *_grid(x, y, x_label),
        *lines,
        width=_WIDTH,
        height=_HEIGHT,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        style="display:block;max-width:100%;height:auto;font:11px system-ui,sans-serif",
    )


def legend(curves: Sequence[Curve]) -> Markup:
    """Return the names of the curves, each after a dash of its colour."""
    words: list[Markup] = []
    for curve in curves:
        if not curve.faint:
            color = f"color:{_color(curve)}"
            words.append(element("b", "\N{EM DASH} ", style=color))
            words.append(element("span", curve.label, style="margin-right:1.2em"))
    return element("div", *words, style="font-size:12px")


def _grid(x: Axis, y: Axis, x_label: str) -> Iterator[Markup]:
    for value, text in y.ticks(4):
        down = _down(y, value)
        yield element("path", d=f"M{_LEFT} {down}H{_RIGHT}", stroke="currentColor", opacity=0.15)
        yield _text(text, _LEFT - 6, _down(y, value, 4), "end")
    for value, text in x.ticks(6, whole=True):
        yield _text(text, _across(x, value), _BOTTOM + 14, "middle")
    yield element("path", d=f"M{_LEFT} {_BOTTOM}H{_RIGHT}", stroke="currentColor", opacity=0.5)
    yield _text(x_label, (_LEFT + _RIGHT) // 2, _BOTTOM + 28, "middle")


def _text(text: str, x: object, y: object, anchor: str) -> Markup:
    return element("text", text, x=x, y=y, text_anchor=anchor, fill="currentColor", opacity=0.75)


def _line(curve: Curve, kept: Sequence[int], x: Axis, y: Axis) -> Markup:
    words, pen = [], "M"
    dots: list[Markup] = []
    for index in kept:
        place = y.place(curve.y[index])
        if place is None:
            pen = "M"
            continue
        across, down = _across(x, curve.x[index]), _down(y, curve.y[index])
        # A line without length, between two gaps, becomes a dot by its round caps.
        words.append(f"{pen}{across} {down}{'h0' if pen == 'M' else ''}")
        pen = "L"
        if curve.dots and len(kept) <= _FEW:
            dots.append(element("circle", cx=across, cy=down, r=2.4, fill="currentColor"))
    width, opacity = (0.8, 0.35) if curve.faint else (1.6, 1)
    path = element("path", d="".join(words), stroke_width=width, opacity=opacity)
    return element(
        "g",
        path,
        *dots,
        *_marks(curve, x),
        fill="none",
        stroke="currentColor",
        stroke_linecap="round",
        stroke_linejoin="round",
        style=f"color:{_color(curve)}",
    )


def _marks(curve: Curve, x: Axis) -> Iterator[Markup]:
    """Mark each value that cannot be drawn by a cross at the top."""
    for index in undrawable(curve.y, PIXELS):
        cross = f"M{_across(x, curve.x[index])} {_TOP - 7}m-3 0l6 6m0 -6l-6 6"
        title = f"{curve.label} is {curve.y[index]} at {number(curve.x[index])}"
        yield element("g", element("title", title), element("path", d=cross))


def _color(curve: Curve) -> str:
    return COLORS[curve.color % len(COLORS)]


def _across(x: Axis, value: float) -> float:
    place = x.place(value) or 0.0
    return round(_LEFT + place * (_RIGHT - _LEFT), 1)


def _down(y: Axis, value: float, below: float = 0) -> float:
    place = y.place(value) or 0.0
    return round(_BOTTOM - place * (_BOTTOM - _TOP) + below, 1)
