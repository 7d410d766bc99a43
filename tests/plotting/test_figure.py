"""Figures of any history, short and strange ones too."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest

import functrain as ft
from functrain.errors import ConfigurationError
from functrain.plotting import Options, curves
from functrain.plotting.chart import chart_of
from functrain.plotting.colors import INK
from functrain.plotting.columns import Columns
from functrain.plotting.curves import draw
from functrain.training.history import History

pytest.importorskip("matplotlib")
from functrain.plotting.page_svg import panels_of

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


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_runs_are_drawn_over_each_other_with_a_legend(suffix: str, tmp_path: Path) -> None:
    rows = [{"step": s, **ROW, "eval/loss": 1.0} for s in range(5)]
    names = ["a $1$", "_hidden", "<c>"]
    chart = chart_of({name: Columns.of(rows) for name in names}, Options(x="step"), "three")
    figure = draw(chart, tmp_path / f"runs.{suffix}")
    draw(chart, tmp_path / f"again.{suffix}")
    picture = (tmp_path / f"runs.{suffix}").read_bytes()
    assert len(picture) > 1_000
    assert picture == (tmp_path / f"again.{suffix}").read_bytes()
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [r"a \$1\$", "_hidden", "<c>", "training", "eval"]


def test_another_ending_raises(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"ending in .png, .svg, .pdf"):
        curves([{"step": 1, "loss": 1.0}], tmp_path / "a.gif")


def test_a_page_shows_the_text_of_labels_as_it_is() -> None:
    name = f'a (1.23456) {INK} style="font: 9px x"'
    ((_, body),) = panels_of(
        chart_of({"": Columns.of([{"step": 1, name: 1.0, f"eval/{name}": 2}])})
    )
    assert f">{name}</text>" in body
    assert INK not in body.replace(name, "")


def test_a_short_run_of_one_metric_is_one_panel() -> None:
    assert len(curves([{"step": 1, "loss": 1.0}]).axes) == 1


def test_a_grid_position_without_a_panel_is_empty() -> None:
    figure = curves(History([{"step": 1, "loss": 1.0, "lr": 0.1, "grad_norm": 2.0}]))
    shown = [axes.axison for axes in figure.axes]
    assert len(shown) == 4
    assert shown == [True, True, True, False]


def test_themes_are_light_and_dark() -> None:
    rows = [{"step": 1, "loss": 1.0}]
    papers = [curves(rows, options=Options(theme=t)).get_facecolor() for t in ("light", "dark")]
    assert sum(papers[0][:3]) > 2.5 > 0.5 > sum(papers[1][:3])
    with pytest.raises(ConfigurationError, match="'light' or 'dark', got 'drak'"):
        Options(theme="drak")


def test_a_notebook_shows_figures_and_axes_without_a_magic_command() -> None:
    shell = pytest.importorskip("IPython.core.formatters").DisplayFormatter()
    schedule = ft.plotting.schedule(ft.schedules.Constant(0.1), steps=3)
    for picture in (curves([{"step": 1, "loss": 1.0}]), schedule):
        data, metadata = shell.format(picture)
        assert data["image/png"][:4] == b"\x89PNG"
        assert 300 < metadata["image/png"]["width"] < 800


def test_a_gap_and_a_cross_where_a_value_is_not_finite() -> None:
    rows = [{"step": s, "loss": math.nan if s in (2, 4) else 1.0} for s in range(6)]
    line, cross = curves(rows, options=Options(smooth=0)).axes[0].lines
    assert [at for at, value in enumerate(line.get_ydata()) if math.isnan(value)] == [2, 4]
    assert line.get_markevery() == [3, 5]  # a point without neighbours is no line
    assert list(cross.get_xdata()) == [2, 4]


VALUES = [
    [0.0],
    [-3.0, -3.0],
    [1e-300, 2e-300],
    [5e-324],
    [-1e299, 1e299],
    [1e308, math.inf, math.nan],
    [math.nan],
    [0.9999999, 1.0],
    [1.0, 1e6],
    [3e-4, 1e-9],
    [0.02, 30.0],
    [1e15, 1e15 + 1],
]


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", VALUES)
def test_every_range_has_a_few_different_ticks_and_holds_its_values(
    values: list[float], log: bool
) -> None:
    rows = [{"step": step, "loss": value} for step, value in enumerate(values, 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = curves(rows, options=Options(log=log))
        figure._repr_png_()
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    shown = [text for text in axes.get_yticklabels() if low <= text.get_position()[1] <= high]
    assert len({text.get_text() for text in shown}) == len(shown) <= 12
    for value in values:
        if abs(value) < 1e300 and (value > 1e-300 or axes.get_yscale() == "linear"):
            assert low <= value <= high


def test_steps_begin_at_zero_unless_they_are_far_from_it() -> None:
    def limits(*steps: int) -> tuple[float, float]:
        return curves([{"step": step, "loss": 1.0} for step in steps]).axes[0].get_xlim()

    assert limits(1, 200) == (0, 200)
    assert limits(900, 1000) == (900, 1000)
    assert limits(5) == (0, 5)
    axes = curves([{"step": step, "loss": 1.0} for step in (1, 2, 3)]).axes[0]
    assert all(float(text.get_text()).is_integer() for text in axes.get_xticklabels())
