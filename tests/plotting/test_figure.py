"""Figures of any history, short and strange ones too."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from functrain.plotting import Columns, Options, chart_of, curves, figure_of
from functrain.training.history import History
from functrain.view import draw

pytest.importorskip("matplotlib")
ROW = {"loss": 1.0, "lr": 0.1, "grad_norm": 2.0}


@pytest.mark.parametrize(
    "rows",
    [
        [{"step": 1, **ROW}],
        [{"step": s, **ROW, "loss": 1 / s} for s in range(1, 100)],
        [{"step": 1, **ROW}, {"step": 2, **ROW, "loss": math.nan, "grad_norm": math.inf}],
        [{"step": 1, **ROW, "loss": -3.0, "eval/loss": -2.0, "eval/accuracy": 0.5}],
        [{"step": 1, **ROW, "grad_norm": 0.0}],
    ],
)
def test_a_figure_is_drawn_and_saved(rows: list[dict[str, float]], tmp_path: Path) -> None:
    figure = curves(History(rows), tmp_path / "curves.png", title="a run")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]
    expected = ["loss", "learning rate", "gradient norm"]
    assert [title for title in titles if title != "eval/accuracy"] == expected
    steps = figure.axes[0].lines[0].get_xdata()
    assert list(steps) == [row["step"] for row in rows]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_runs_are_drawn_over_each_other_with_a_legend(suffix: str, tmp_path: Path) -> None:
    rows = [{"step": s, **ROW, "eval/loss": 1.0} for s in range(5)]
    names = ["a $1$", "_hidden", "<c>"]
    chart = chart_of({name: Columns.of(rows) for name in names}, Options(x="step"), "three")
    draw(chart, tmp_path / f"runs{suffix}")
    assert (tmp_path / f"runs{suffix}").stat().st_size > 1_000
    figure = figure_of(chart)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [r"a \$1\$", "_hidden", "<c>", "training", "eval"]


def test_a_short_run_of_one_metric_is_one_panel() -> None:
    assert len(curves([{"step": 1, "loss": 1.0}]).axes) == 1


def test_a_grid_position_without_a_panel_is_empty() -> None:
    figure = curves(History([{"step": 1, "loss": 1.0, "lr": 0.1, "grad_norm": 2.0}]))
    shown = [axes.axison for axes in figure.axes]
    assert len(shown) == 4
    assert shown == [True, True, True, False]
