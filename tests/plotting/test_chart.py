"""Which metrics share a panel, and their colours, styles and labels."""

from __future__ import annotations

from typing import Any

import pytest

from functrain.errors import ConfigurationError
from functrain.plotting import Options
from functrain.plotting.chart import Chart, chart_of
from functrain.plotting.colors import BETWEEN, THEMES
from functrain.plotting.columns import Columns

LIGHT, DARK = THEMES["light"].lines, THEMES["dark"].lines

STEP = {"epoch": 0, "lr": 0.1, "lr.0": 0.1, "grad_norm": 2.0, "memory/host": 1e9}
MORE = {"epoch/loss": 1.0, "grad_norm/head": 1.0}
EVALUATED = {"eval/loss": 1.0, "eval/ema/loss": 0.9, "eval/accuracy": 0.5}
ROWS = [{"step": s, "loss": 1 / s, **STEP, **MORE, **EVALUATED} for s in (1, 2, 100)]


def lines(chart: Chart) -> dict[str, list[tuple[Any, ...]]]:
    return {
        panel.title: [(line.label, line.color, line.dash) for line in panel.lines]
        for panel in chart.panels
    }


def test_colours_of_one_run_tell_metrics_and_styles_tell_evaluation_sets() -> None:
    assert lines(chart_of({"run": Columns.of(ROWS)})) == {
        "loss": [("loss", 0, 0), ("eval/loss", 1, 1), ("eval/ema/loss", 2, 2)],
        "memory/host": [("memory/host", 0, 0)],
        "eval/accuracy": [("eval/accuracy", 0, 1)],
        "learning rate": [("lr", 0, 0)],
        "gradient norm": [("grad_norm", 0, 0), ("grad_norm/head", 1, 0)],
    }


def test_colours_of_several_runs_tell_the_runs() -> None:
    other = [{"step": 1, "loss": 3.0, "eval/loss": 2.0, "f1": 0.5}]
    chart = chart_of({"a": Columns.of(ROWS), "b": Columns.of(other)})
    assert chart.runs == ("a", "b")
    assert lines(chart)["loss"] == [("a", 0, 0), ("a", 0, 1), ("a", 0, 2), ("b", 1, 0), ("b", 1, 1)]
    assert lines(chart)["f1"] == [("b", 1, 0)]
    assert chart.styles == {"training": 0, "eval": 1, "eval/ema": 2}


def test_metrics_are_chosen_by_globs() -> None:
    columns = {"run": Columns.of(ROWS)}
    chosen = chart_of(columns, Options(metrics=("eval/*", "lr.*")))
    names = {line.metric for panel in chosen.panels for line in panel.lines}
    assert names == {"eval/loss", "eval/ema/loss", "eval/accuracy", "lr.0"}
    with pytest.raises(ConfigurationError, match="did you mean 'eval/accuracy'"):
        chart_of(columns, Options(metrics=("eval/acuracy",)))


@pytest.mark.parametrize("smooth", [-0.1, 1.0, float("nan")])
def test_a_window_that_is_no_share_raises(smooth: float) -> None:
    with pytest.raises(ConfigurationError, match=r"smooth: expected a number in \[0, 1\)"):
        Options(smooth=smooth)


def test_an_unknown_unit_raises_and_the_error_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"x: .*did you mean 'epoch'"):
        Options(x="epochs")


def test_a_loss_over_orders_of_magnitude_has_a_log_axis_unless_log_is_given() -> None:
    columns = {"run": Columns.of(ROWS)}
    assert [panel.title for panel in chart_of(columns).panels if panel.log] == ["loss"]
    assert not any(panel.log for panel in chart_of(columns, Options(log=False)).panels)
    assert all(panel.log for panel in chart_of(columns, Options(log=True)).panels)


def linear(color: str) -> list[float]:
    """sRGB to linear light, IEC 61966-2-1."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]


def luminance(color: str) -> float:
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear(color), strict=True))


@pytest.mark.parametrize(
    ("colors", "page"),
    [(LIGHT, "#ffffff"), (DARK, "#14171b")]
    + [(BETWEEN, page) for page in ("#ffffff", "#f6f7f9", "#111111", "#1d2127")],
)
def test_every_colour_has_the_contrast_of_wcag_for_graphics(
    colors: tuple[str, ...], page: str
) -> None:
    for color in colors:
        high, low = sorted((luminance(color), luminance(page)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 3, color


# Machado, Oliveira and Fernandes (2009), severity 1: protanopia, deuteranopia, tritanopia.
BLINDNESS = [
    [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
]


def lab(rgb: list[float]) -> list[float]:
    """Linear light to CIE L*a*b*, D65."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    white = (0.9505, 1.0, 1.089)
    f = []
    for row, w in zip(to_xyz, white, strict=True):
        t = sum(a * max(0.0, b) for a, b in zip(row, rgb, strict=True)) / w
        f.append(t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116)
    return [116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])]


@pytest.mark.parametrize("colors", [LIGHT, DARK, BETWEEN])
@pytest.mark.parametrize("matrix", BLINDNESS)
def test_the_first_colours_differ_for_colour_blind_readers(
    colors: tuple[str, ...], matrix: list[list[float]]
) -> None:
    seen = [
        lab([sum(a * b for a, b in zip(row, linear(color), strict=True)) for row in matrix])
        for color in colors[:4]
    ]
    for at, first in enumerate(seen):
        for second in seen[at + 1 :]:
            difference = sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5
            assert difference > 10, (colors, first, second)
